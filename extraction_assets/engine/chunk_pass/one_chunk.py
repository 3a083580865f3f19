"""One chunk on one device: tokens -> activations, features, top-k table and statistics, for several SAEs at once.

The only place that calls all of the engine. Tensors stay on the device from the forward pass to the table.
"""

import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import PassContext, PassSettings
from extraction_assets.engine.chunk_pass.forward import HookReader, QueuedForward, prefetch_hooks
from extraction_assets.engine.chunk_pass.sae_pass import SaePass, SaeTask
from extraction_assets.engine.chunk_pass.sae_result import SaeResult, UnfinishedSae
from extraction_assets.engine.chunk_pass.stage_clock import StageClock
from extraction_assets.engine.chunk_pass.staging import HostStaging
from extraction_assets.engine.shapes import Samples

PROBE_SAMPLES = 4
"""Samples of each chunk whose features are kept for the comparison with the legacy loop."""


class ChunkResult(NamedTuple):
    """The results of a pass over one chunk."""

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
        saes: "dict[str, UnfinishedSae]",
        staging: HostStaging,
        clock: StageClock,
        started: float,
    ) -> None:
        self._activations, self._saes, self._staging = activations, saes, staging
        self._clock, self._started = clock, started
        self._seconds: float | None = None

    @property
    def kept_bytes(self) -> int:
        """Of activations and features that are kept, on the host."""
        rows = (column for one in self._saes.values() for part in one.features for column in part[:3])
        return sum(tensor.nbytes for tensor in chain(self._activations.values(), rows))

    def wait(self) -> float:
        """Waits for the results, in whatever thread; returns the seconds of the pass, which ends when this is first
        called and they are there."""
        self._staging.wait()
        if self._seconds is None:
            self._seconds = time.perf_counter() - self._started
        return self._seconds

    def result(self) -> ChunkResult:
        """The results, once they are there."""
        seconds = self.wait()
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
    queued: QueuedForward | None = None,
    queue_next: Callable[[], object] | None = None,
) -> Generator[int, None, UnfinishedChunk]:
    """One pass over a chunk: yields the number of samples of each group that is done, returns the chunk.

    What it gives is on its way to the host when this returns, so that the next chunk need not wait for it. On a GPU
    ``queue_next`` is called once, when the last forward pass is queued: it may queue the first one of the next chunk,
    which gets it as ``queued``.

    ``read_hooks`` gives the hook outputs (``forward_pass`` or ``stored_activations``); it may be None where
    every task has stored features and no activations are kept. ``batch`` says how many samples are reduced at
    once. Results do not depend on it: the forward pass runs in batches of one fixed shape, encode in tiles of
    ``tile_samples``. Synchronisations on a GPU with Triton for each reduced batch and SAE: 2, whatever the statistics
    (1 to encode; 1 to select and to look for NaN), 1 more where special tokens are stored but do not count,
    1 where outlier norms do not; about 4 more for each compaction of the top-k table and as many for each of the draws,
    which come ever more rarely, and some 10 at the end of the chunk.
    Peak device memory: two groups of hook outputs (of this chunk, or its last and the next one's first), one dense tile
    of at most 128 MiB (or one sample; on a GPU what ``SAE.encode_sparse`` reads at once), the sparse features of one
    batch and, for each SAE, O(F * K) and its statistics (1.1 kB a feature). Full statistics add the draws, which are
    O(F), and 964 bytes a feature of thresholds and populations, 1 GB at F = 2^20. Kept results go to pinned host memory
    while the next batch computes.
    Raises NonFiniteError; ForwardOutOfMemoryError; MemoryError if one sample does not fit.
    """
    started = time.perf_counter()
    shared = PassContext(samples, settings, batch, device, set(probe_rows), queued.clock if queued else None)
    runs = [SaePass(task, shared) for task in tasks]
    encoded = {task.hook for task in tasks if task.stored_features is None}
    kept: dict[str, Tensor] = {}
    shared.reduce_after({})
    groups = list(forward_groups(len(samples.token_ids), settings.batch_size, batch.size))
    ahead = prefetch_hooks(read_hooks, groups, shared, queued, queue_next)
    del queued  # otherwise its outputs would be kept as long as this runs
    for (start, stop), hooks in ahead:
        with shared.reducing():
            for hook, activations in hooks.items():
                if hook in encoded:  # encoding looks for NaN itself
                    shared.exclude_outliers(hook, activations, start)
                else:
                    shared.refuse_non_finite(activations, start, f"the output of hook {hook!r}")
                if settings.keep_activations:
                    _keep_rows(kept, hook, activations, start, shared)
            for run in runs:
                run.add(start, stop, hooks.get(run.task.hook), hooks.get(run.task.hook_out or ""))
        del hooks  # otherwise a group would be kept while the next one is made
        yield stop - start
    with shared.reducing():
        unfinished = {run.task.name: run.finish() for run in runs}
    return UnfinishedChunk(kept, unfinished, shared.staging, shared.clock, started)


def run_chunk(
    samples: Samples,
    read_hooks: HookReader | None,
    tasks: list[SaeTask],
    settings: PassSettings,
    batch: AdaptiveBatch,
    device: torch.device,
    probe_rows: Sequence[int] = (),
) -> ChunkResult:
    """``chunk_steps`` to its end, and the chunk's results once they are on the host."""
    steps = chunk_steps(samples, read_hooks, tasks, settings, batch, device, list(probe_rows))
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            unfinished: UnfinishedChunk = finished.value
            return unfinished.result()


def numerics_record(
    device: torch.device,
    model_dtype: str,
    settings: PassSettings,
    *,
    compiled: bool = False,
    eager_blocks: Sequence[int] = (),
    kernels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What can change the last bits of a result, beyond its inputs and settings.

    ``compiled`` is about the model; ``eager_blocks`` are the blocks left uncompiled because of hooks inside;
    ``kernels`` are the optional packages that it runs on (``kernel_versions``).
    """
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
        **({"compiled": True} if compiled else {}),
        **({"eager_blocks": list(eager_blocks)} if compiled and eager_blocks else {}),
        **({"kernels": dict(kernels)} if kernels else {}),
    }


def forward_groups(total: int, batch_size: int, vectorization_batch_size: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole forward batches, large enough for one vectorization batch."""
    group = batch_size * -(-vectorization_batch_size // batch_size)
    for start in range(0, total, group):
        yield start, min(start + group, total)


def _keep_rows(kept: dict[str, Tensor], hook: str, activations: Tensor, start: int, shared: PassContext) -> None:
    if hook not in kept:
        total = len(shared.samples.token_ids)
        kept[hook] = shared.staging.buffer(total, *activations.shape[1:], dtype=activations.dtype)
    shared.staging.copy_into(kept[hook][start : start + len(activations)], activations)
