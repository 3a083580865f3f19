"""One chunk on one device: tokens -> activations, features, top-k table and statistics, for several SAEs at once.

The only place that calls all of the engine. Tensors stay on the device from the forward pass to the table.
"""

import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.batching import AdaptiveBatch
from extraction_assets.engine.heap import DeferredTopKHeap
from extraction_assets.engine.language_model import LanguageModel
from extraction_assets.engine.legacy import LegacyHeaps
from extraction_assets.engine.sae import SAE, matmul_precision, variance_explained
from extraction_assets.engine.select import sample_maxima, select_top_k
from extraction_assets.engine.shapes import FeatureStatistics, Samples, SparseFeatures, TopKTable
from extraction_assets.engine.sparse import concatenate, keep_counted, take_samples, to_dense
from extraction_assets.engine.statistics import accumulate, feature_statistics

PROBE_SAMPLES = 4
"""Samples of each chunk whose features are kept for the comparison with the legacy loop."""
RECONSTRUCTION_SAMPLES = 32
"""Samples of each chunk whose reconstruction is scored."""

HookReader = Callable[[int, int], Mapping[str, Tensor]]
"""(start, stop) of a chunk's samples -> {hook: [stop - start, T, D]} on the device."""


class NonFiniteError(ValueError):
    """A NaN or an infinity at a counted position; the message names sample, hook and SAE."""


class SaeTask(NamedTuple):
    """One SAE to run over a chunk."""

    name: str
    hook: str
    sae: SAE
    stored_features: SparseFeatures | None = None
    """Encoded features of the whole chunk if they need not be computed, on any device."""


class PassSettings(NamedTuple):
    """What a pass is told; see the GPU resource for the meaning of each."""

    batch_size: int
    top_k: int
    min_activation: float = 0.0
    vectorized: bool = True
    matmul_precision: str = "high"
    keep_activations: bool = False
    keep_features: bool = False


class SaeResult(NamedTuple):
    """What a chunk gives for one SAE, on the CPU."""

    table: TopKTable
    statistics: FeatureStatistics
    features: SparseFeatures | None
    """Features at all non-padding positions, if kept."""
    probe: dict[int, Tensor]
    """Dense features float32 [T, F] of a few samples by row of the chunk, for the comparison with the legacy loop."""
    variance_explained: float
    """Over a few samples; NaN where the features were read from a file."""
    all_finite: bool
    """Whether no token at all, counted or not, has a NaN or an infinity: else its features cannot be selected from
    again by other rules of what counts."""


class ChunkResult(NamedTuple):
    """What a pass over one chunk gives."""

    activations: dict[str, Tensor]
    """{hook: [n, T, D]} in the model's dtype on the CPU, if kept."""
    saes: dict[str, SaeResult]
    seconds: float


def chunk_steps(
    samples: Samples,
    read_hooks: HookReader | None,
    tasks: list[SaeTask],
    settings: PassSettings,
    batch: AdaptiveBatch,
    device: torch.device,
    probe_rows: list[int],
) -> Generator[int, None, ChunkResult]:
    """One pass over a chunk: yields the number of samples of each group that is done, returns the chunk's result.

    ``read_hooks`` gives the hook outputs (``forward_pass`` or ``stored_activations``); it may be None where
    every task has stored features and no activations are kept. ``batch`` says how many samples are reduced at
    once. Results do not depend on it: the forward pass runs in batches of one fixed shape, encode in tiles of
    one sample. Peak device memory: one group of hook outputs, one batch of dense features and, for each SAE,
    O(F * K).
    Raises NonFiniteError; MemoryError where one sample does not fit.
    """
    started = time.perf_counter()
    runs = [_SaeRun(task, samples, settings, batch, device, set(probe_rows)) for task in tasks]
    kept: dict[str, Tensor] = {}
    for start, stop in _groups(len(samples.token_ids), settings.batch_size, batch.size):
        hooks: Mapping[str, Tensor] = read_hooks(start, stop) if read_hooks else {}
        for hook, activations in hooks.items():
            readers = ", ".join(repr(task.name) for task in tasks if task.hook == hook)
            what = f"the output of hook {hook!r}" + (f", which SAE {readers} reads," if readers else "")
            _refuse_non_finite(activations, samples, start, what)
            if settings.keep_activations:
                _keep_rows(kept, hook, activations, start, len(samples.token_ids))
        for run in runs:
            run.add(start, stop, hooks.get(run.task.hook))
        yield stop - start
    return ChunkResult(kept, {run.task.name: run.result() for run in runs}, time.perf_counter() - started)


def forward_pass(model: LanguageModel, samples: Samples, batch_size: int) -> HookReader:
    """Hook outputs computed by the model, in padded batches of one fixed shape [batch_size, T].

    A model that takes a mask gets one more row, always padding, so that no batch is without padding: for such a batch
    it would choose another attention kernel, with other last bits.
    """
    rows = batch_size if model.is_causal else batch_size + 1

    def read(start: int, stop: int) -> Mapping[str, Tensor]:
        parts: dict[str, list[Tensor]] = {hook: [] for hook in model.hooks}
        for first in range(start, stop, batch_size):
            last = min(first + batch_size, stop)
            ids, mask = _padded_batch(samples, first, last, rows)
            for hook, output in model.activations(ids.to(model.device), mask.to(model.device)).items():
                parts[hook].append(output[: last - first])
        return {hook: torch.cat(outputs) for hook, outputs in parts.items()}  # [stop - start, T, D]

    return read


def stored_activations(activations: Mapping[str, Tensor], device: torch.device) -> HookReader:
    """Hook outputs read from {hook: [n, T, D]} of an earlier pass."""
    return lambda start, stop: {hook: tensor[start:stop].to(device) for hook, tensor in activations.items()}


def numerics_record(
    device: torch.device, model_dtype: str, settings: PassSettings, num_positions: int
) -> dict[str, Any]:
    """What can change the last bits of a result, beyond its inputs and settings."""
    import transformers

    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else f"cpu {platform.machine()}",
        "cpu_capability": None if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "threads": None if on_gpu else torch.get_num_threads(),
        "dtype": model_dtype,
        "matmul_precision": settings.matmul_precision,
        "batch_size": settings.batch_size,
        "encode_tile_tokens": num_positions,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda if on_gpu else None,
    }


class _SaeRun:
    """One SAE's share of a pass: encode, select, count."""

    def __init__(
        self,
        task: SaeTask,
        samples: Samples,
        settings: PassSettings,
        batch: AdaptiveBatch,
        device: torch.device,
        probe_rows: set[int],
    ) -> None:
        self.task = task
        self._samples, self._settings, self._batch, self._device = samples, settings, batch, device
        self._probe_rows = probe_rows
        self._heap: DeferredTopKHeap | LegacyHeaps
        if settings.vectorized:
            self._heap = DeferredTopKHeap(task.sae.latent_dim, settings.top_k, settings.min_activation)
        else:
            self._heap = LegacyHeaps(task.sae.latent_dim, settings.top_k, settings.min_activation)
        self._statistics: FeatureStatistics | None = None
        self._all_finite = torch.ones((), dtype=torch.bool, device=device)
        self._features: list[SparseFeatures] = []
        self._probe: dict[int, Tensor] = {}
        self._scored: list[tuple[Tensor, Tensor, Tensor]] = []
        self._num_scored = 0

    def add(self, start: int, stop: int, activations: Tensor | None) -> None:
        """Samples ``start:stop`` of the chunk, with the hook's output [stop - start, T, D] if it was computed."""

        def work(first: int, last: int) -> "_Batch":
            own = None if activations is None else activations[first:last]
            return self._reduce(start + first, start + last, own)

        for result in self._batch.map(stop - start, work):
            self._take(result)
            del result  # or a batch would be kept while the next one is made

    def result(self) -> SaeResult:
        assert self._statistics is not None, "a chunk has at least one sample"
        variance = float("nan")
        if self._scored:
            x, reconstruction, counted = (torch.cat(parts) for parts in zip(*self._scored, strict=True))
            variance = variance_explained(x, reconstruction, counted)
        return SaeResult(
            table=TopKTable(*(column.cpu() for column in self._heap.build_heaps())),
            statistics=_statistics_to_cpu(self._statistics),
            features=concatenate(self._features) if self._features else None,
            probe=self._probe,
            variance_explained=variance,
            all_finite=bool(self._all_finite),
        )

    def _reduce(self, start: int, stop: int, activations: Tensor | None) -> "_Batch":
        """Pure: leaves no trace unless it returns, so that it can be repeated on half of the range."""
        counted = self._samples.counted[start:stop].to(self._device)
        features = self._features_of(start, stop, activations, counted)
        own = keep_counted(features, counted)
        maxima = sample_maxima(own)
        table = None
        if isinstance(self._heap, DeferredTopKHeap):
            floor = self._heap.floor(self._device)
            first_sample = self._samples.first_sample + start
            table = select_top_k(own, maxima, first_sample, self._settings.top_k, floor)
        return _Batch(start, stop, activations, features, own, table, feature_statistics(own, maxima, counted))

    def _features_of(self, start: int, stop: int, activations: Tensor | None, counted: Tensor) -> SparseFeatures:
        """Features of samples ``start:stop`` at all non-padding positions."""
        if self.task.stored_features is not None:
            part = take_samples(self.task.stored_features, start, stop)
            return part._replace(**{name: getattr(part, name).to(self._device) for name in part._fields[:3]})
        if activations is None:
            raise ValueError(f"SAE {self.task.name!r} has neither stored features nor hook outputs to encode")
        num_positions = activations.shape[1]
        with matmul_precision(self._settings.matmul_precision):
            encoded = self.task.sae.encode_sparse(activations.reshape(-1, activations.shape[2]), num_positions)
        attention = self._samples.attention_mask[start:stop].to(self._device)
        finite = encoded.finite.view(counted.shape)  # [n, T]
        self._all_finite &= (finite | ~attention).all()
        wrong = counted & ~finite
        _raise_for(
            wrong,
            self._samples,
            start,
            f"the pre-activations of SAE {self.task.name!r} at {self.task.hook!r}",
        )
        features = SparseFeatures(*encoded[:3], stop - start, num_positions, self.task.sae.latent_dim)
        return keep_counted(features, attention)

    def _take(self, batch: "_Batch") -> None:
        """The one place where a batch's results are added up."""
        self._statistics = (
            batch.statistics if self._statistics is None else accumulate(self._statistics, batch.statistics)
        )
        if isinstance(self._heap, DeferredTopKHeap):
            assert batch.table is not None
            self._heap.add_batch(batch.table)
        else:
            self._add_to_legacy(self._heap, batch)
        if self._settings.keep_features:
            self._features.append(_to_cpu(batch.features))
        for row in sorted(self._probe_rows & set(range(batch.start, batch.stop))):
            one = take_samples(batch.counted_features, row - batch.start, row - batch.start + 1)
            self._probe[row] = to_dense(_to_cpu(one))[0]
        self._score(batch)

    def _add_to_legacy(self, heaps: LegacyHeaps, batch: "_Batch") -> None:
        """The sequential loop: one sample after the other, one feature after the other."""
        for row in range(batch.start, batch.stop):
            one = take_samples(batch.features, row - batch.start, row - batch.start + 1)
            heaps.add_sample(to_dense(one)[0], self._samples.counted[row], self._samples.first_sample + row)

    def _score(self, batch: "_Batch") -> None:
        """Reconstructions of the chunk's first samples, for the variance that the SAE explains."""
        count = min(batch.stop - batch.start, RECONSTRUCTION_SAMPLES - self._num_scored)
        if batch.activations is None or self.task.stored_features is not None or count <= 0:
            return
        reconstruction = self.task.sae.decode(take_samples(batch.features, 0, count))
        counted = self._samples.counted[batch.start : batch.start + count]
        self._scored.append((batch.activations[:count].float().cpu(), reconstruction.cpu(), counted.cpu()))
        self._num_scored += count


class _Batch(NamedTuple):
    """Everything that one vectorization batch gives."""

    start: int
    stop: int
    activations: Tensor | None
    features: SparseFeatures
    counted_features: SparseFeatures
    table: TopKTable | None
    statistics: FeatureStatistics


def _groups(total: int, batch_size: int, vectorization_batch_size: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole forward batches, large enough for one vectorization batch."""
    group = batch_size * -(-vectorization_batch_size // batch_size)
    for start in range(0, total, group):
        yield start, min(start + group, total)


def _padded_batch(samples: Samples, start: int, stop: int, rows: int) -> tuple[Tensor, Tensor]:
    """Samples ``start:stop`` filled up to [rows, T]; a filler has one token, so that no softmax is empty."""
    filler = rows - (stop - start)
    pad = torch.nn.functional.pad
    ids = pad(samples.token_ids[start:stop], (0, 0, 0, filler))
    mask = pad(samples.attention_mask[start:stop], (0, 0, 0, filler))
    mask[stop - start :, 0] = True
    return ids, mask


def _keep_rows(kept: dict[str, Tensor], hook: str, activations: Tensor, start: int, total: int) -> None:
    if hook not in kept:
        kept[hook] = torch.empty(total, *activations.shape[1:], dtype=activations.dtype)
    kept[hook][start : start + len(activations)].copy_(activations)


def _statistics_to_cpu(statistics: FeatureStatistics) -> FeatureStatistics:
    moved: dict[str, Any] = {n: v.cpu() for n, v in statistics._asdict().items() if isinstance(v, Tensor)}
    return statistics._replace(**moved)


def _to_cpu(features: SparseFeatures) -> SparseFeatures:
    return features._replace(**{name: getattr(features, name).cpu() for name in features._fields[:3]})


def _refuse_non_finite(activations: Tensor, samples: Samples, start: int, what: str) -> None:
    counted = samples.counted[start : start + len(activations)].to(activations.device)
    _raise_for(counted & ~torch.isfinite(activations).all(dim=-1), samples, start, what)


def _raise_for(wrong: Tensor, samples: Samples, start: int, what: str) -> None:
    """``wrong`` bool [n, T]: counted positions with a NaN or an infinity. One synchronisation."""
    if not bool(wrong.any()):
        return
    row, position = wrong.nonzero()[0].tolist()
    raise NonFiniteError(
        f"{what} holds a NaN or an infinity in sample {samples.first_sample + start + row}, position {position}: "
        "nothing of this chunk is stored; try a wider dtype, and check the model's and the SAE's weights"
    )
