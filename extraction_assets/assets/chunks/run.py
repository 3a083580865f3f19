"""A run over some chunks: the model is loaded once; a chunk is checked and written while the next one computes."""

import logging
import random
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from types import TracebackType
from typing import NamedTuple, Self

import dagster as dg
import torch

from extraction_assets.assets.chunks.checks import replayed
from extraction_assets.assets.chunks.finish import Finished, QueuedChunk, ResourceUsage, Written, finish_chunk
from extraction_assets.assets.chunks.recorded_numbers import metadata_again
from extraction_assets.assets.chunks.start import examine_start
from extraction_assets.catalog import MODEL_ACTIVATIONS, SAE_FEATURES, TOP_K_TABLE
from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import (
    ForwardOutOfMemoryError,
    HookReader,
    forward_pass,
    stored_activations,
)
from extraction_assets.engine.chunk_pass.gpu_pass import PROBE_SAMPLES, chunk_steps, numerics_record
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.findings import log_and_raise
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model, resolve_checkpoint
from extraction_assets.engine.preflight.compatibility import examine_combination, refuse_unknown_tokens
from extraction_assets.engine.saes.checkpoint import check_recorded
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import Samples
from extraction_assets.execution.damage import is_sound, usable_activations, usable_features
from extraction_assets.execution.keys import Target, chunk_targets
from extraction_assets.execution.lineage import Lineage
from extraction_assets.execution.progress import Progress, progress
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.resources import GpuResource
from extraction_assets.resources.utilization import UtilizationSampler
from extraction_assets.stores.chunk_record import Record, checks_of, read_record

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation


class ChunkRun:
    """Computes chunks one after the other on one device; a context manager, which joins the writer and the sampler."""

    def __init__(
        self,
        plan: ExtractionPlan,
        gpu: GpuResource,
        device: torch.device,
        selected: Collection[dg.AssetKey],
        lineage: Lineage,
        logger: logging.Logger,
    ) -> None:
        self.plan, self.gpu, self.device, self._lineage, self.logger = plan, gpu, device, lineage, logger
        self._targets = [target for target in chunk_targets(plan.settings) if target.key in selected]
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chunk-writer")
        self._pending: _Pending | None = None
        self._usage = UtilizationSampler(device, logger)

    def __enter__(self) -> Self:
        self._usage.__enter__()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._usage.__exit__(error_type, error, traceback)
        self._writer.shutdown(wait=True)

    def events(self, keys: Sequence[str], *, reuse: bool = False) -> Iterator[Event]:
        """Computes ``keys`` and yields each chunk's events once its files are durable.

        With ``reuse`` (a retry, a run of the missing), what of a chunk is on disk is not computed again: its events are
        recorded anew, because a partition without one counts as failed.
        """
        with progress("chunks", sum(map(self._num_samples, keys)), "samples", self.logger) as update:
            try:
                missing_targets = yield from self._missing_targets(keys, update, reuse=reuse)
                if missing_targets:
                    examine_start(self, missing_targets)
                for key, targets in missing_targets.items():
                    yield from self._events_of(key, targets, update)
                yield from self._durable()
            except (Exception, dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
                yield from self._durable()  # what was computed before is recorded, whatever has happened since
                raise
            except GeneratorExit:  # canceled while Dagster was storing an event: it asks for no more of them
                for event in self._durable():
                    self._lineage.report(event)
                raise

    def _missing_targets(
        self, keys: Sequence[str], update: Progress, *, reuse: bool
    ) -> Generator[Event, None, dict[str, list[Target]]]:
        """What of each chunk is to be computed. With ``reuse``, all that is there is recorded first: then what is left
        of the run is work alone, and so is the time left. What is damaged is not there."""
        missing_targets = {}
        for key in keys:
            done = [t for t in self._targets if reuse and is_sound(self.plan, t.asset, key, t.sae, self.logger)]
            yield from self._recorded_again(key, done)
            missing_targets[key] = [target for target in self._targets if target not in done]
            if not missing_targets[key]:
                del missing_targets[key]
                update.skip(self._num_samples(key))
        return missing_targets

    def _events_of(self, key: str, targets: list[Target], update: Progress) -> Iterator[Event]:
        """Computes what a chunk lacks and hands it to the writer."""
        computed = yield from self._computed(key, targets, update)
        yield from self._durable()
        self._pending = _Pending(key, self._writer.submit(finish_chunk, self.plan, computed))

    def _computed(self, key: str, targets: list[Target], update: Progress) -> Generator[Event, None, QueuedChunk]:
        """Computes a chunk; between its batches, yields the events of the chunk before as soon as it is durable."""
        steps = self._compute(key, targets, update.begin)
        try:
            while True:
                update(next(steps), self._note(key))
                if self._pending is not None and self._pending.finished.done():
                    yield from self._durable()
        except StopIteration as done:
            computed: QueuedChunk = done.value
            return computed

    def _num_samples(self, key: str) -> int:
        settings = self.plan.settings
        return len(range(*settings.chunk_rows(key).indices(settings.evaluation_samples)))

    def _note(self, key: str) -> str:
        """What progress shows beside the rate."""
        busy = self._usage.gpu_percent
        return f"chunk {key}, batch {self.batch.size}" + ("" if busy is None else f", GPU {busy:.0f}%")

    def _durable(self) -> Iterator[Event]:
        """Waits for the files of the chunk that is being written, if there is one, and gives its events. Fails where a
        check of it failed."""
        pending = self._pending
        if pending is None:
            return
        try:
            finished = pending.finished.result()
        except Exception:  # of the writer; an interrupt of this thread leaves the chunk to be waited for again
            self._pending = None
            raise
        for one in finished.written:
            yield self._materialization(pending.key, one)
        yield from map(self._lineage.targeted, finished.evaluations) if finished.written else finished.evaluations
        self._pending = None  # only now: an interrupt on the way must not lose the record
        finished.refuse()

    @cached_property
    def saes(self) -> dict[str, SAE]:
        """The SAEs that are asked for, on the device, after checking that they fit the model's hooks."""
        wanted, settings = {target.sae for target in self._targets}, self.plan.settings
        chosen = {name: sae for name, sae in settings.saes.items() if name in wanted}
        trusted = settings.language_model.trust_remote_code
        length = settings.corpus.max_length
        found = examine_combination(self._model_path, chosen, length, trust_remote_code=trusted)
        log_and_raise(found.findings, self.logger)
        for difference in check_recorded(settings, found.weights):
            self.logger.warning("%s", difference)
        return {name: SAE(own, self.device) for name, own in found.weights.items()}

    @cached_property
    def model(self) -> LanguageModel:
        """The language model on the device."""
        settings = self.plan.settings.language_model
        self.logger.info("loading %s on %s", settings.path, self.device)
        model = load_language_model(
            self._model_path,
            self._hooks,
            device=self.device,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
        )
        log_and_raise(model.weight_findings(), self.logger)
        return model

    @property
    def _hooks(self) -> list[str]:
        """Hooks to run to: all where activations are stored, else those that the SAEs asked for read."""
        if any(target.asset == MODEL_ACTIVATIONS for target in self._targets):
            return self.plan.settings.hooks
        return list(dict.fromkeys(hook for name in self.saes for hook in self.plan.settings.saes[name].hooks))

    @cached_property
    def batch(self) -> AdaptiveBatch:
        """Samples to reduce at once; asked for once models are on the device."""
        settings = self.plan.settings
        latent_dim = max((sae.latent_dim for sae in self.saes.values()), default=1)
        return self.gpu.vectorization_batch(self.device, latent_dim, settings.corpus.max_length, self.logger)

    @cached_property
    def _model_path(self) -> str:
        model = self.plan.settings.language_model
        return str(resolve_checkpoint(model.path, revision=model.revision, trust_remote_code=model.trust_remote_code))

    @cached_property
    def forward_batch(self) -> AdaptiveBatch:
        """Samples of one forward pass."""
        return AdaptiveBatch(self.gpu.batch_size, self.logger)

    def _compute(self, key: str, targets: list[Target], begin: Callable[[], None]) -> Generator[int, None, QueuedChunk]:
        """Yields the number of samples of each group that is done; calls ``begin`` once model and SAEs are loaded.

        A chunk is computed anew with half the batch where the forward pass runs out of memory: the batch is part of the
        numerics record, so that a chunk is computed with one size from its first sample to its last.
        """
        halvings = len(self.forward_batch.halvings)
        while True:
            try:
                computed = yield from self._attempt(key, targets, begin)
                used = computed.used._replace(forward_halvings=self.forward_batch.halvings[halvings:])
                return computed._replace(used=used)
            except ForwardOutOfMemoryError as error:
                if self.forward_batch.size == 1:
                    raise MemoryError(f"{error}: not even one sample fits; use a device with more memory") from error
                done = error.done
            yield -done  # outside the handler, where the traceback still holds tensors
            self.forward_batch.halve(self.forward_batch.size)

    def _attempt(self, key: str, targets: list[Target], begin: Callable[[], None]) -> Generator[int, None, QueuedChunk]:
        samples, pass_settings = self.plan.samples(key), self._pass_settings(targets)
        tasks, feature_records = self._tasks(key, targets)
        needs_hooks = pass_settings.keep_activations or any(task.stored_features is None for task in tasks)
        reader, dtype, source = self._reader(key, samples, pass_settings) if needs_hooks else (None, "", None)
        compiled = source is None and needs_hooks and self.model.compiled
        blocks = self.model.eager_blocks if compiled else []
        rng = random.Random(int(key))
        rows = sorted(rng.sample(range(len(samples.token_ids)), min(PROBE_SAMPLES, len(samples.token_ids))))
        batch, halvings = self.batch, len(self.batch.halvings)
        begin()
        self._usage.restart()
        unfinished = yield from chunk_steps(samples, reader, tasks, pass_settings, batch, self.device, rows)
        usage = self._usage.read()
        numerics = numerics_record(self.device, dtype, pass_settings, compiled=compiled, eager_blocks=blocks)
        if source is not None:
            numerics["activations"] = source["numerics"]
        used = ResourceUsage(pass_settings.batch_size, batch.size, batch.halvings[halvings:], usage)
        return QueuedChunk(key, targets, samples, unfinished, numerics, feature_records, used, rng)

    def _pass_settings(self, targets: list[Target]) -> PassSettings:
        assets = {target.asset for target in targets}
        return PassSettings(
            batch_size=self.forward_batch.size,
            top_k=self.plan.settings.top_k_examples,
            min_activation=self.plan.settings.min_activation,
            vectorized=self.gpu.vectorized,
            matmul_precision=self.gpu.matmul_precision,
            keep_activations=MODEL_ACTIVATIONS in assets,
            keep_features=SAE_FEATURES in assets,
            exclude_outlier_norms=self.plan.settings.corpus.exclude_outlier_norms,
        )

    def _tasks(self, key: str, targets: list[Target]) -> tuple[list[SaeTask], dict[str, Record]]:
        """The SAEs to run, with features stored by an earlier run unless they are asked for anew; their records."""
        tasks, records = [], {}
        for name, sae in self.saes.items():
            own = {target.asset for target in targets if target.sae == name}
            if not own:
                continue
            stored = None
            selectable = own == {TOP_K_TABLE} and self.plan.settings.corpus.exclude_outlier_norms is None
            found = usable_features(self.plan, key, name, sae.latent_dim, self.logger) if selectable else None
            if found is not None:
                stored, records[name] = found
            chosen = self.plan.settings.saes[name]
            tasks.append(SaeTask(name, chosen.input_hook, sae, stored, chosen.hook_out))
        return tasks, records

    def _reader(self, key: str, samples: Samples, settings: PassSettings) -> tuple[HookReader, str, Record | None]:
        """Hook outputs from the store if they are there and not asked for anew, else from the model; their dtype, and
        the record of the file that they were read from."""
        usable = None if settings.keep_activations else usable_activations(self.plan, key, self._hooks, self.logger)
        if usable is not None:
            stored, record = usable
            return stored_activations(stored, self.device), str(next(iter(stored.values())).dtype), record
        refuse_unknown_tokens(samples, self.model)
        if self.gpu.compile_model and not self.model.compiled:  # only now, since the early checks read more hooks
            self.logger.info("the first forward pass compiles the model's blocks")
            self.model.compile_blocks()
        return forward_pass(self.model, samples, settings.batch_size), str(self.model.dtype), None

    def _materialization(self, key: str, written: Written) -> dg.AssetMaterialization:
        target = written.target
        tags = self._lineage.tags(target.asset, target.sae, key)
        return dg.AssetMaterialization(target.key, partition=key, metadata=written.metadata, tags=tags)

    def _recorded_again(self, key: str, targets: list[Target]) -> Iterator[Event]:
        """Events of a chunk that an earlier run or attempt made durable, with the numbers of that time."""
        for target in targets:
            metadata = metadata_again(self.plan, target, key, self._lineage.instance)
            yield self._materialization(key, Written(target, metadata))
            if target.asset == TOP_K_TABLE:
                record = read_record(self.plan.chunk_path(target.asset, key, target.sae))
                for name in checks_of(record):
                    yield self._lineage.targeted(replayed(dg.AssetCheckKey(target.key, name), key, record))


class _Pending(NamedTuple):
    """A chunk that the writer's thread has."""

    key: str
    finished: Future[Finished]
