"""One chunk on the device: the parts that are read from files, those that are computed, and the pass itself."""

import random
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import dagster as dg

from extraction_assets.catalog import MODEL_ACTIVATIONS, SAE_FEATURES
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import (
    ForwardOutOfMemoryError,
    HookReader,
    QueuedForward,
    forward_pass,
    queue_forward,
    stored_activations,
)
from extraction_assets.engine.chunk_pass.one_chunk import (
    PROBE_SAMPLES,
    UnfinishedChunk,
    chunk_steps,
    forward_groups,
    numerics_record,
)
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.forward.kernels import kernel_versions
from extraction_assets.engine.preflight.compatibility import refuse_unknown_tokens
from extraction_assets.engine.shapes import Samples
from extraction_assets.execution.keys import Target
from extraction_assets.execution.loaded_models import LoadedModels
from extraction_assets.execution.stored_inputs import (
    activations_suffice,
    features_suffice,
    read_stored_activations,
    read_stored_features,
)
from extraction_assets.planning.draw_rules import draw_rules
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.resources.utilization import Utilization, UtilizationSampler
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_record import Record


class ResourceUsage(NamedTuple):
    """What the pass over a chunk took of the machine."""

    batch_size: int
    vectorization_batch_size: int
    """At the chunk's end."""
    halvings: list[int]
    """Batches of this chunk that did not fit."""
    utilization: Utilization
    forward_halvings: Sequence[int] = ()
    """Forward batches of this chunk that did not fit; after each the chunk was computed again."""

    def metadata(self) -> dict[str, Any]:
        """Metadata of a materialization event."""
        return {
            **self.utilization.metadata(),
            "batch_size": self.batch_size,
            "vectorization_batch_size": self.vectorization_batch_size,
            "halvings": dg.MetadataValue.json(self.halvings),
            "forward_halvings": dg.MetadataValue.json(list(self.forward_halvings)),
        }


class QueuedChunk(NamedTuple):
    """A chunk whose pass is queued to its end on the device."""

    chunk: Chunk
    targets: list[Target]
    samples: Samples
    unfinished: UnfinishedChunk
    numerics: dict[str, Any]
    stored: dict[str, Record]
    """Records of the stored features that were read, by SAE."""
    usage: ResourceUsage
    rng: random.Random
    """Seeded by the chunk; chooses what is compared with the legacy loop."""


class _HookSource(NamedTuple):
    """Where a chunk's hook outputs come from."""

    read: HookReader | None = None
    """None if no hook output is needed."""
    dtype: str = ""
    """Of the outputs."""
    record: Record | None = None
    """Of the file that they are read from; None if the model computes them."""


class PreparedChunk(NamedTuple):
    """A chunk that is ready to be computed."""

    samples: Samples
    settings: PassSettings
    tasks: list[SaeTask]
    source: _HookSource
    numerics: dict[str, Any]
    stored: dict[str, Record]
    """Records of the stored features that were read, by SAE."""
    queued: QueuedForward | None = None
    """Its first forward pass, if that is queued already."""


def compute_chunk(
    plan: ExtractionPlan,
    loaded: LoadedModels,
    usage: UtilizationSampler,
    chunk: Chunk,
    targets: list[Target],
    begin: Callable[[], None],
    prepared: PreparedChunk | None = None,
    queue_next: Callable[[], object] | None = None,
) -> Generator[int, None, QueuedChunk]:
    """Computes ``targets`` of a chunk, ``prepared`` or not. Yields the number of samples of each group that is done;
    calls ``begin`` once model and SAEs are loaded, and on a GPU ``queue_next`` when the last forward pass is queued.

    Where the forward pass runs out of memory, the whole chunk is computed again with half the batch: the batch is part
    of the numerics record, so a chunk has one size from its first sample to its last. Raises MemoryError if not even
    one sample fits, NonFiniteError, CorpusError.
    """
    forward_batch = loaded.forward_batch
    halvings = len(forward_batch.halvings)
    while True:
        try:
            ready = prepared or prepare_chunk(plan, loaded, chunk, targets)
            begin()
            attempt = _attempt(ready, loaded, usage, chunk, targets, queue_next)
            del ready
            prepared = None  # its first outputs are not kept longer than the first group needs them
            queued = yield from attempt
            return queued._replace(usage=queued.usage._replace(forward_halvings=forward_batch.halvings[halvings:]))
        except ForwardOutOfMemoryError as error:
            if forward_batch.size == 1:
                raise MemoryError(f"{error}: not even one sample fits; use a device with more memory") from error
            done = error.done
        yield -done  # outside the handler, where the traceback still holds tensors
        forward_batch.halve(forward_batch.size)


def prepare_chunk(plan: ExtractionPlan, loaded: LoadedModels, chunk: Chunk, targets: list[Target]) -> PreparedChunk:
    """Reads a chunk's samples and what is stored of it, and chooses the rest. Raises CorpusError."""
    samples, settings = plan.samples(chunk), pass_settings(plan, loaded, targets)
    tasks, records = _tasks(plan, loaded, chunk, targets)
    needs_hooks = settings.keep_activations or any(task.stored_features is None for task in tasks)
    source = _hook_source(plan, loaded, chunk, targets, samples, settings) if needs_hooks else _HookSource()
    return PreparedChunk(samples, settings, tasks, source, _numerics(loaded, source, settings), records)


def queue_chunk(
    plan: ExtractionPlan, loaded: LoadedModels, chunk: Chunk, targets: list[Target]
) -> PreparedChunk | None:
    """A chunk with its first forward pass queued on the GPU; None if it is made from stored files, which take long to
    read and check. Raises what the chunk's own turn would raise, and MemoryError."""
    if activations_suffice(plan, chunk, targets):
        return None
    if any(features_suffice(plan, chunk, name, targets, loaded.logger) for name in loaded.saes):
        return None
    prepared = prepare_chunk(plan, loaded, chunk, targets)
    if prepared.source.read is None or prepared.source.record is not None:
        return None
    total, batch_size = len(prepared.samples.token_ids), prepared.settings.batch_size
    first = next(forward_groups(total, batch_size, loaded.batch.size))
    return prepared._replace(queued=queue_forward(prepared.source.read, first, loaded.device))


def _attempt(
    ready: PreparedChunk,
    loaded: LoadedModels,
    usage: UtilizationSampler,
    chunk: Chunk,
    targets: list[Target],
    queue_next: Callable[[], object] | None,
) -> Generator[int, None, QueuedChunk]:
    samples, settings, tasks, source, numerics, records, first = ready
    del ready  # as above
    rng = random.Random(chunk.first_sample)
    rows = sorted(rng.sample(range(len(samples.token_ids)), min(PROBE_SAMPLES, len(samples.token_ids))))
    batch, halvings = loaded.batch, len(loaded.batch.halvings)
    usage.restart()
    steps = chunk_steps(samples, source.read, tasks, settings, batch, loaded.device, rows, first, queue_next)
    del first  # as above
    unfinished = yield from steps
    taken = ResourceUsage(settings.batch_size, batch.size, batch.halvings[halvings:], usage.read())
    return QueuedChunk(chunk, targets, samples, unfinished, numerics, records, taken, rng)


def pass_settings(plan: ExtractionPlan, loaded: LoadedModels, targets: Sequence[Target]) -> PassSettings:
    """Settings of the pass that computes ``targets`` of a chunk."""
    assets = {target.asset for target in targets}
    return PassSettings(
        batch_size=loaded.forward_batch.size,
        top_k=plan.settings.top_k_examples,
        min_activation=plan.settings.min_activation,
        vectorized=loaded.gpu.vectorized,
        matmul_precision=loaded.gpu.matmul_precision,
        keep_activations=MODEL_ACTIVATIONS in assets,
        keep_features=SAE_FEATURES in assets,
        exclude_outlier_norms=plan.settings.corpus.exclude_outlier_norms,
        draws=draw_rules(plan.settings),
    )


def _tasks(
    plan: ExtractionPlan, loaded: LoadedModels, chunk: Chunk, targets: list[Target]
) -> tuple[list[SaeTask], dict[str, Record]]:
    """The SAEs to run, with stored features where these suffice; the records of such features by SAE."""
    tasks, records = [], dict[str, Record]()
    for name, sae in loaded.saes.items():
        if not any(target.sae == name for target in targets):
            continue
        features = None
        if features_suffice(plan, chunk, name, targets, loaded.logger):
            found = read_stored_features(plan, chunk, name, sae.latent_dim, loaded.logger)
            if found is not None:
                features, records[name] = found
        chosen = plan.extraction.saes[name]
        tasks.append(SaeTask(name, chosen.hook, sae, features, chosen.hook_out))
    return tasks, records


def _hook_source(
    plan: ExtractionPlan,
    loaded: LoadedModels,
    chunk: Chunk,
    targets: list[Target],
    samples: Samples,
    settings: PassSettings,
) -> _HookSource:
    """Stored activations where these suffice, else the model."""
    if activations_suffice(plan, chunk, targets):
        found = read_stored_activations(plan, chunk, loaded.hooks, loaded.logger)
        if found is not None:
            outputs, record = found
            dtype = str(next(iter(outputs.values())).dtype)
            return _HookSource(stored_activations(outputs, loaded.device), dtype, record)
    refuse_unknown_tokens(samples, loaded.model)
    model = loaded.compiled_model()
    return _HookSource(forward_pass(model, samples, settings.batch_size), str(model.dtype))


def _numerics(loaded: LoadedModels, source: _HookSource, settings: PassSettings) -> dict[str, Any]:
    """The numerics record; it repeats that of stored activations, which another machine may have computed."""
    is_computed = source.read is not None and source.record is None
    compiled = is_computed and loaded.model.compiled
    numerics = numerics_record(
        loaded.device,
        source.dtype,
        settings,
        compiled=compiled,
        eager_blocks=loaded.model.eager_blocks if compiled else [],
        kernels=kernel_versions(loaded.model.module) if is_computed else {},
    )
    if source.record is not None:
        numerics["activations"] = source.record["numerics"]
    return numerics
