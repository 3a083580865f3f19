"""What the SAEs of one pass over a chunk have in common: its samples, its settings, its streams."""

import bisect
import contextlib
import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.stage_clock import StageClock
from extraction_assets.engine.chunk_pass.staging import HostStaging, to_device
from extraction_assets.engine.selection.hashing import sampled
from extraction_assets.engine.selection.outliers import outlier_positions
from extraction_assets.engine.shapes import DrawRules, Samples


class NonFiniteError(ValueError):
    """A NaN or an infinity at a counted position; the message names sample, hook and SAE."""


class PassSettings(NamedTuple):
    """Settings of a pass; the GPU resource documents each."""

    batch_size: int
    top_k: int
    min_activation: float = 0.0
    vectorized: bool = True
    matmul_precision: str = "high"
    keep_activations: bool = False
    keep_features: bool = False
    exclude_outlier_norms: float | None = None
    """Multiple of the median; see ``outlier_positions``."""
    draws: DrawRules | None = None
    """What is drawn; None with ``statistics: basic``, then nothing is and samples are not counted by interval."""


class PassContext:
    """What the SAEs of a pass have in common."""

    def __init__(
        self,
        samples: Samples,
        settings: PassSettings,
        batch: AdaptiveBatch,
        device: torch.device,
        probe_rows: set[int],
        clock: StageClock | None = None,
    ) -> None:
        self.samples, self.settings, self.batch, self.device = samples, settings, batch, device
        self.probe_rows = probe_rows
        self.attention_mask = to_device(samples.attention_mask, device)
        self.counted = to_device(samples.counted, device)
        self.all_count = settings.exclude_outlier_norms is None and torch.equal(samples.counted, samples.attention_mask)
        self.sampled_rows = self._choose_samples()
        self._sampled_on_device = to_device(torch.tensor(self.sampled_rows, dtype=torch.int64), device)
        self._counted_by_hook: dict[str, Tensor] = {}
        self.clock, self.staging = clock or StageClock(device), HostStaging(device)
        self._stream = _reducing_stream(device) if device.type == "cuda" else None

    def _choose_samples(self) -> list[int]:
        """Rows of the chunk whose firings are kept, known before the pass; none with basic statistics."""
        rules, first, count = self.settings.draws, self.samples.first_sample, len(self.samples.token_ids)
        if rules is None:
            return []
        chosen = sampled(rules.draw_seed, torch.arange(first, first + count), rules.sample_one_in)
        return chosen.nonzero().squeeze(1).tolist()

    def sampled_between(self, start: int, stop: int) -> Tensor | None:
        """Those of rows ``start:stop`` whose firings are kept, counted from ``start``: int64 [S] on the device; None if
        there are none. No synchronisation."""
        first, last = (bisect.bisect_left(self.sampled_rows, row) for row in (start, stop))
        return self._sampled_on_device[first:last] - start if first < last else None

    def reducing(self) -> contextlib.AbstractContextManager[object]:
        """Encode and select in here: on a GPU they have a stream of their own beside the forward pass's, which goes
        first, because the host waits for it."""
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def reduce_after(self, hooks: Mapping[str, Tensor]) -> None:
        """The reductions queued from here on may use ``hooks`` and everything queued before. No synchronisation."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            for tensor in hooks.values():
                tensor.record_stream(self._stream)

    def counted_at(self, hook: str) -> Tensor:
        """bool [n, T] on the device: positions that count for what reads ``hook``, as far as its outputs are known."""
        if self.settings.exclude_outlier_norms is None:
            return self.counted
        if hook not in self._counted_by_hook:
            self._counted_by_hook[hook] = self.counted.clone()
        return self._counted_by_hook[hook]

    def exclude_outliers(self, hook: str, activations: Tensor, start: int) -> None:
        """``activations`` [n, T, D] of samples from ``start`` on, whose outliers do not count at ``hook``."""
        if self.settings.exclude_outlier_norms is not None:
            counted = self.counted_at(hook)[start : start + len(activations)]
            counted &= ~outlier_positions(activations, counted, self.settings.exclude_outlier_norms)

    def tokens_counted(self, hook: str, start: int, stop: int) -> int:
        """Counted positions of some samples. On the host, unless outliers are excluded: one synchronisation then."""
        if self.settings.exclude_outlier_norms is None:
            return int(self.samples.counted[start:stop].sum())
        return int(self.counted_at(hook)[start:stop].sum())

    def refuse_non_finite(self, activations: Tensor, start: int, what: str) -> None:
        """``activations`` [n, T, D] of samples from ``start`` on. One synchronisation."""
        counted = self.counted[start : start + len(activations)]
        self.raise_for(counted & ~torch.isfinite(activations).all(dim=-1), start, what)

    def raise_for(self, wrong: Tensor, start: int, what: str) -> None:
        """``wrong`` bool [n, T]: counted positions with a NaN or an infinity. One synchronisation."""
        if not bool(wrong.any()):
            return
        row, position = wrong.nonzero()[0].tolist()
        raise NonFiniteError(
            f"{what} holds a NaN or an infinity in sample {self.samples.first_sample + start + row}, "
            f"position {position}: nothing of this chunk is stored; try a wider dtype, and check the model's and the "
            "SAE's weights"
        )


@functools.cache
def _reducing_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all passes: each stream that multiplies matrices keeps 32 MiB of workspace."""
    return torch.cuda.Stream(device, priority=-1)
