"""One chunk on one device: tokens -> activations, features, top-k table and statistics, for several SAEs at once.

The only place that calls all of the engine. Tensors stay on the device from the forward pass to the table.
"""

import contextlib
import functools
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
from extraction_assets.engine.memory import is_out_of_memory, within_memory
from extraction_assets.engine.sae import SAE, VarianceExplained, matmul_precision
from extraction_assets.engine.select import sample_maxima, select_top_k
from extraction_assets.engine.shapes import FeatureRows, FeatureStatistics, Samples, SparseFeatures, TopKTable
from extraction_assets.engine.sparse import (
    concatenate_rows,
    each_sample,
    keep_counted,
    take_rows,
    take_samples,
    to_dense,
    to_rows,
)
from extraction_assets.engine.stage_clock import StageClock
from extraction_assets.engine.staging import HostStaging
from extraction_assets.engine.statistics import StatisticsAccumulator, StatisticsUpdate, statistics_update

PROBE_SAMPLES = 4
"""Samples of each chunk whose features are kept for the comparison with the legacy loop."""
RECONSTRUCTION_SAMPLES = 32
"""Samples of each chunk whose reconstruction is scored."""

_TILE_BYTES = 128 << 20
_TILE_TOKENS = 2048

HookReader = Callable[[int, int], Mapping[str, Tensor]]
"""(start, stop) of a chunk's samples -> {hook: [stop - start, T, D]} on the device."""


class NonFiniteError(ValueError):
    """A NaN or an infinity at a counted position; the message names sample, hook and SAE."""


class ForwardOutOfMemoryError(MemoryError):
    """The forward pass does not fit, even after all memory that was not needed was given back: a smaller
    ``batch_size`` is needed, and with it the chunk anew, for it is one of the things that last bits depend on."""

    def __init__(self, message: str, done: int) -> None:
        super().__init__(message)
        self.done = done
        """Samples of the chunk that had been yielded as done."""


class SaeTask(NamedTuple):
    """One SAE to run over a chunk."""

    name: str
    hook: str
    sae: SAE
    stored_features: FeatureRows | None = None
    """Encoded features of the whole chunk on the CPU, if they need not be computed."""


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
    features: FeatureRows | None
    """Features at all non-padding positions, if kept."""
    probe: dict[int, Tensor]
    """Dense features float32 [T, F] of a few samples by row of the chunk, for the comparison with the legacy loop."""
    variance_explained: float
    """Over a few samples; NaN where the features were read from a file."""
    all_finite: bool
    """Whether none of the kept features' tokens, counted or not, has a NaN or an infinity: else they cannot be
    selected from again by other rules of what counts."""
    encode_tile_tokens: int | None
    """Tokens of one matrix product; None where the features were read from a file."""


class ChunkResult(NamedTuple):
    """What a pass over one chunk gives."""

    activations: dict[str, Tensor]
    """{hook: [n, T, D]} in the model's dtype on the CPU, if kept."""
    saes: dict[str, SaeResult]
    seconds: float
    stage_seconds: dict[str, float]
    """Seconds of ``forward``, ``encode`` and ``select`` (with the statistics), of the device where it is a GPU."""


class UnfinishedChunk:
    """A pass that is queued to its end; its results may still be on their way from the device."""

    def __init__(
        self,
        activations: dict[str, Tensor],
        saes: "dict[str, _UnfinishedSae]",
        staging: HostStaging,
        clock: StageClock,
        started: float,
    ) -> None:
        self._activations, self._saes, self._staging = activations, saes, staging
        self._clock, self._started = clock, started

    def result(self) -> ChunkResult:
        """Waits for the results, in whatever thread."""
        self._staging.wait()
        seconds = time.perf_counter() - self._started
        saes = {name: unfinished.result() for name, unfinished in self._saes.items()}
        return ChunkResult(self._activations, saes, seconds, self._clock.seconds())


def chunk_steps(
    samples: Samples,
    read_hooks: HookReader | None,
    tasks: list[SaeTask],
    settings: PassSettings,
    batch: AdaptiveBatch,
    device: torch.device,
    probe_rows: list[int],
) -> Generator[int, None, UnfinishedChunk]:
    """One pass over a chunk: yields the number of samples of each group that is done, returns the chunk.

    What it gives is on its way to the host when this returns, so that the next chunk need not wait for it.

    ``read_hooks`` gives the hook outputs (``forward_pass`` or ``stored_activations``); it may be None where
    every task has stored features and no activations are kept. ``batch`` says how many samples are reduced at
    once. Results do not depend on it: the forward pass runs in batches of one fixed shape, encode in tiles of
    ``tile_samples``. Synchronisations on a GPU for each reduced batch and SAE: 5 (1 to encode, 2 for topk; 1 to look
    for NaN, 3 to select), 1 more where special tokens are stored but do not count; about 4 more for each compaction of
    the top-k table, which come ever more rarely, and some 10 at the end of the chunk.
    Peak device memory: two groups of hook outputs, one dense tile of at most 128 MiB (or one sample), the sparse
    features of one batch and, for each SAE, O(F * K). What is kept goes to pinned host memory while the next batch
    computes.
    Raises NonFiniteError; ForwardOutOfMemoryError; MemoryError where one sample does not fit.
    """
    started = time.perf_counter()
    shared = _Shared(samples, settings, batch, device, set(probe_rows))
    runs = [_SaeRun(task, shared) for task in tasks]
    encoded = {task.hook for task in tasks if task.stored_features is None}
    kept: dict[str, Tensor] = {}
    shared.reduce_after({})
    groups = list(_groups(len(samples.token_ids), settings.batch_size, batch.size))
    for (start, stop), hooks in _hooks_ahead(read_hooks, groups, shared):
        with shared.reducing():
            for hook, activations in hooks.items():
                if hook not in encoded:  # encoding looks for NaN itself
                    shared.refuse_non_finite(activations, start, f"the output of hook {hook!r}")
                if settings.keep_activations:
                    _keep_rows(kept, hook, activations, start, shared)
            for run in runs:
                run.add(start, stop, hooks.get(run.task.hook))
        del hooks  # or a group would be kept while the next one is made
        yield stop - start
    with shared.reducing():
        unfinished = {run.task.name: run.finish() for run in runs}
    return UnfinishedChunk(kept, unfinished, shared.staging, shared.clock, started)


def tile_samples(batch_size: int, num_positions: int, num_features: int) -> int:
    """Samples whose tokens are encoded in one matrix product.

    As many as divide the forward batch and give at most 128 MiB of dense features and 2,048 tokens; at least one.
    Larger products are no faster, and far smaller ones are slower on any device.
    """
    fits = min(_TILE_BYTES // (num_positions * num_features * 4), _TILE_TOKENS // num_positions)
    return max([count for count in range(1, batch_size + 1) if batch_size % count == 0 and count <= fits], default=1)


def _hooks_ahead(
    read_hooks: HookReader | None, groups: list[tuple[int, int]], shared: "_Shared"
) -> Iterator[tuple[tuple[int, int], Mapping[str, Tensor]]]:
    """Each group with its hook outputs, to be worked on in ``shared.reducing``.

    On a GPU the next group's forward pass is queued before this one's outputs are given, so that the GPU has work
    while the host waits for the sizes of what it selects. Where memory runs out, it is not queued ahead.
    """
    if read_hooks is None:
        yield from ((group, {}) for group in groups)
        return
    ahead: Mapping[str, Tensor] | None = None
    looks_ahead = shared.device.type == "cuda"
    for number, group in enumerate(groups):
        hooks = ahead if ahead is not None else _read(read_hooks, *group, shared.clock)
        ahead = None
        shared.reduce_after(hooks)
        if looks_ahead and number + 1 < len(groups):
            try:
                with shared.clock.stage("forward"):
                    ahead = read_hooks(*groups[number + 1])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                looks_ahead = False
        yield group, hooks
        del hooks  # or a group would be kept while the next one is made


def _read(read_hooks: HookReader, start: int, stop: int, clock: StageClock) -> Mapping[str, Tensor]:
    """The hook outputs; where memory runs out, once more after giving back all that is not needed."""

    def read() -> Mapping[str, Tensor]:
        with clock.stage("forward"):
            return read_hooks(start, stop)

    def read_or_refuse() -> Mapping[str, Tensor]:
        try:
            return read()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ForwardOutOfMemoryError(
                f"out of memory in the forward pass of samples {start} to {stop - 1} of the chunk ({error})", start
            ) from error

    return within_memory(read, read_or_refuse)


def forward_pass(model: LanguageModel, samples: Samples, batch_size: int) -> HookReader:
    """Hook outputs computed by the model, in padded batches of one fixed shape [batch_size, T].

    A model that takes a mask gets one more row, always padding, so that no batch is without padding: for such a batch
    it would choose another attention kernel, with other last bits.
    """
    rows = batch_size if model.is_causal else batch_size + 1
    token_ids, attention_mask = samples.token_ids.to(model.device), samples.attention_mask.to(model.device)

    def read(start: int, stop: int) -> Mapping[str, Tensor]:
        parts: dict[str, list[Tensor]] = {hook: [] for hook in model.hooks}
        for first in range(start, stop, batch_size):
            last = min(first + batch_size, stop)
            ids, mask = _padded(token_ids[first:last], rows), _padded(attention_mask[first:last], rows)
            mask[last - first :, 0] = True  # a filler has one token, so that no softmax is empty
            for hook, output in model.activations(ids, mask).items():
                parts[hook].append(output[: last - first])
        return {hook: _joined(outputs) for hook, outputs in parts.items()}  # [stop - start, T, D]

    return read


def stored_activations(activations: Mapping[str, Tensor], device: torch.device) -> HookReader:
    """Hook outputs read from {hook: [n, T, D]} of an earlier pass."""
    return lambda start, stop: {hook: tensor[start:stop].to(device) for hook, tensor in activations.items()}


def numerics_record(device: torch.device, model_dtype: str, settings: PassSettings) -> dict[str, Any]:
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
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cuda": torch.version.cuda if on_gpu else None,
    }


class _Shared:
    """What the SAEs of a pass have in common."""

    def __init__(
        self,
        samples: Samples,
        settings: PassSettings,
        batch: AdaptiveBatch,
        device: torch.device,
        probe_rows: set[int],
    ) -> None:
        self.samples, self.settings, self.batch, self.device = samples, settings, batch, device
        self.probe_rows = probe_rows
        self.attention_mask = samples.attention_mask.to(device)
        self.counted = samples.counted.to(device)
        self.all_count = torch.equal(samples.counted, samples.attention_mask)
        self.clock, self.staging = StageClock(device), HostStaging(device)
        self._stream = _reducing_stream(device) if device.type == "cuda" else None

    def reducing(self) -> contextlib.AbstractContextManager[object]:
        """Encode and select in here: on a GPU they have a stream of their own beside the forward pass's, which goes
        first, because the host waits for it."""
        return contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def reduce_after(self, hooks: Mapping[str, Tensor]) -> None:
        """What is reduced from here on may use ``hooks`` and all that was queued before. No synchronisation."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.device))
            for tensor in hooks.values():
                tensor.record_stream(self._stream)

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
    """One for all passes: each stream that multiplies matrices has 32 MiB of workspace for good."""
    return torch.cuda.Stream(device, priority=-1)


class _SaeRun:
    """One SAE's share of a pass: encode, select, count."""

    def __init__(self, task: SaeTask, shared: _Shared) -> None:
        self.task, self._shared, self._settings = task, shared, shared.settings
        num_positions, latent_dim = shared.samples.token_ids.shape[1], task.sae.latent_dim
        self._tile = (
            None if task.stored_features else tile_samples(self._settings.batch_size, num_positions, latent_dim)
        )
        self._heap: DeferredTopKHeap | LegacyHeaps
        if self._settings.vectorized:
            self._heap = DeferredTopKHeap(latent_dim, self._settings.top_k, self._settings.min_activation)
        else:
            self._heap = LegacyHeaps(latent_dim, self._settings.top_k, self._settings.min_activation)
        self._statistics = StatisticsAccumulator(latent_dim, shared.device)
        self._all_finite = torch.ones((), dtype=torch.bool, device=shared.device)
        self._features: list[FeatureRows] = []
        self._probe: dict[int, SparseFeatures] = {}
        self._explained, self._num_scored = VarianceExplained(), 0

    def add(self, start: int, stop: int, activations: Tensor | None) -> None:
        """Samples ``start:stop`` of the chunk, with the hook's output [stop - start, T, D] if it was computed."""

        def work(first: int, last: int) -> list[_Batch]:
            own = None if activations is None else activations[first:last]
            return self._reduce(start + first, start + last, own)

        for batches in self._shared.batch.map(stop - start, work, self._tile or 1):
            with self._shared.clock.stage("select"):
                for batch in batches:
                    self._take(batch)
            del batches, batch  # or a batch would be kept while the next one is made

    def finish(self) -> "_UnfinishedSae":
        """What the chunk gives, queued to be copied to the host."""
        staging = self._shared.staging
        return _UnfinishedSae(
            table=staging.copy_fields(self._heap.build_heaps()),
            statistics=staging.copy_fields(self._statistics.build()),
            features=self._features,
            probe=self._probe,
            variance_explained=staging.copy(self._explained.value()),
            all_finite=staging.copy(self._all_finite),
            encode_tile_tokens=self._tile and self._tile * self._shared.samples.token_ids.shape[1],
        )

    def _reduce(self, start: int, stop: int, activations: Tensor | None) -> "list[_Batch]":
        """Pure: leaves no trace unless it returns, so that it can be repeated on half of the range.

        One batch, or several where not even one tile may be reduced at once.
        """
        shared, size = self._shared, self._shared.batch.size
        with shared.clock.stage("encode"):
            features = self._features_of(start, stop, activations)
        batches = []
        with shared.clock.stage("select"):
            for first in range(0, stop - start, size):
                last = min(first + size, stop - start)
                part = take_samples(features, first, last)
                batches.append(
                    self._select(start + first, part, None if activations is None else activations[first:last])
                )
        return batches

    def _select(self, start: int, features: SparseFeatures, activations: Tensor | None) -> "_Batch":
        """Pure. The table and the statistics of some samples' features at wanted positions."""
        stop = start + features.num_samples
        own = features
        if not self._shared.all_count and self._features_everywhere:
            own = keep_counted(features, self._shared.counted[start:stop])
        maxima = sample_maxima(own)
        table = None
        if isinstance(self._heap, DeferredTopKHeap):
            floor = self._heap.floor(self._shared.device)
            first_sample = self._shared.samples.first_sample + start
            table = select_top_k(own, maxima, first_sample, self._settings.top_k, floor)
        rows = to_rows(features) if self._settings.keep_features else None
        return _Batch(start, stop, activations, features, own, rows, table, statistics_update(own, maxima))

    @property
    def _features_everywhere(self) -> bool:
        """Whether features stand at all non-padding positions, not at counted ones alone."""
        return self._settings.keep_features or self.task.stored_features is not None

    def _features_of(self, start: int, stop: int, activations: Tensor | None) -> SparseFeatures:
        """Features of samples ``start:stop`` at the positions that are wanted."""
        if self.task.stored_features is not None:
            return take_rows(self.task.stored_features, start, stop, self._shared.device)
        if activations is None or self._tile is None:
            raise ValueError(f"SAE {self.task.name!r} has neither stored features nor hook outputs to encode")
        count, num_positions, width = activations.shape
        filler = -count % self._tile  # at the end of the chunk
        wanted = (self._shared.attention_mask if self._features_everywhere else self._shared.counted)[start:stop]
        if filler:
            activations = torch.nn.functional.pad(activations, (0, 0, 0, 0, 0, filler))
            wanted = torch.nn.functional.pad(wanted, (0, 0, 0, filler))
        with matmul_precision(self._settings.matmul_precision):
            firings = self.task.sae.encode_sparse(
                activations.reshape(-1, width), self._tile * num_positions, wanted.reshape(-1)
            )
        finite = firings.finite.view(-1, num_positions)[:count]
        self._refuse_non_finite(finite, activations[:count], start, stop)
        self._all_finite &= finite.all()
        return SparseFeatures(*firings[:3], count, num_positions, self.task.sae.latent_dim)

    def _refuse_non_finite(self, finite: Tensor, activations: Tensor, start: int, stop: int) -> None:
        """A NaN of the hook's output is one of the pre-activations too, so that one look is enough; where there is one,
        the message names the first module that it comes from."""
        wrong = self._shared.counted[start:stop] & ~finite
        if bool(wrong.any()):
            hook, name = self.task.hook, self.task.name
            self._shared.refuse_non_finite(
                activations, start, f"the output of hook {hook!r}, which SAE {name!r} reads,"
            )
            self._shared.raise_for(wrong, start, f"the pre-activations of SAE {name!r} at {hook!r}")

    def _take(self, batch: "_Batch") -> None:
        """The one place where a batch's results are added up."""
        tokens = int(self._shared.samples.counted[batch.start : batch.stop].sum())  # on the host: no synchronisation
        self._statistics.add(batch.statistics, batch.stop - batch.start, tokens)
        if isinstance(self._heap, DeferredTopKHeap):
            assert batch.table is not None
            self._heap.add_batch(batch.table)
        else:
            self._add_to_legacy(self._heap, batch)
        if batch.rows is not None:
            self._features.append(self._shared.staging.copy_fields(batch.rows))
        for row in sorted(self._shared.probe_rows & set(range(batch.start, batch.stop))):
            one = take_samples(batch.counted_features, row - batch.start, row - batch.start + 1)
            self._probe[row] = self._shared.staging.copy_fields(one)
        self._score(batch)

    def _add_to_legacy(self, heaps: LegacyHeaps, batch: "_Batch") -> None:
        """The sequential loop: one sample after the other, one feature after the other."""
        for row in range(batch.start, batch.stop):
            one = take_samples(batch.features, row - batch.start, row - batch.start + 1)
            samples = self._shared.samples
            heaps.add_sample(to_dense(one)[0], samples.counted[row], samples.first_sample + row)

    def _score(self, batch: "_Batch") -> None:
        """Reconstructions of the chunk's first samples, for the variance that the SAE explains."""
        count = min(batch.stop - batch.start, RECONSTRUCTION_SAMPLES - self._num_scored)
        if batch.activations is None or self.task.stored_features is not None or count <= 0:
            return
        for row, features in enumerate(each_sample(batch.features, count)):  # one by one: no batch size changes a bit
            activations, counted = batch.activations[row], self._shared.counted[batch.start + row]

            def score(features: SparseFeatures = features, x: Tensor = activations, counted: Tensor = counted) -> None:
                self._explained.add(x, self.task.sae.decode(features)[0], counted)

            within_memory(score, score)  # a sample needs little: what is held elsewhere is given back
        self._num_scored += count


class _UnfinishedSae(NamedTuple):
    """What a chunk gives for one SAE, once its copies are complete."""

    table: TopKTable
    statistics: FeatureStatistics
    features: list[FeatureRows]
    probe: dict[int, SparseFeatures]
    variance_explained: Tensor
    all_finite: Tensor
    encode_tile_tokens: int | None

    def result(self) -> SaeResult:
        return SaeResult(
            table=self.table,
            statistics=self.statistics,
            features=concatenate_rows(self.features) if self.features else None,
            probe={row: to_dense(sparse)[0] for row, sparse in self.probe.items()},
            variance_explained=float(self.variance_explained),
            all_finite=bool(self.all_finite),
            encode_tile_tokens=self.encode_tile_tokens,
        )


class _Batch(NamedTuple):
    """Everything that one vectorization batch gives."""

    start: int
    stop: int
    activations: Tensor | None
    features: SparseFeatures
    counted_features: SparseFeatures
    rows: FeatureRows | None
    """The features as they are stored, if they are."""
    table: TopKTable | None
    statistics: StatisticsUpdate


def _groups(total: int, batch_size: int, vectorization_batch_size: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole forward batches, large enough for one vectorization batch."""
    group = batch_size * -(-vectorization_batch_size // batch_size)
    for start in range(0, total, group):
        yield start, min(start + group, total)


def _padded(samples: Tensor, rows: int) -> Tensor:
    """[n, T] filled up with zeros to [rows, T]; always a copy."""
    return torch.nn.functional.pad(samples, (0, 0, 0, rows - len(samples))).clone()


def _joined(outputs: list[Tensor]) -> Tensor:
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _keep_rows(kept: dict[str, Tensor], hook: str, activations: Tensor, start: int, shared: _Shared) -> None:
    if hook not in kept:
        total = len(shared.samples.token_ids)
        kept[hook] = shared.staging.buffer(total, *activations.shape[1:], dtype=activations.dtype)
    shared.staging.copy_into(kept[hook][start : start + len(activations)], activations)
