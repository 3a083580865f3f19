"""A run over some chunks, one after the other: while one computes, those before it are checked and written."""

import logging
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Self

import dagster as dg
import torch

from extraction_assets.assets.chunks.checks import replayed
from extraction_assets.assets.chunks.compute import PreparedChunk, QueuedChunk, compute_chunk, queue_chunk
from extraction_assets.assets.chunks.finish import FinishedChunk, WrittenFile
from extraction_assets.assets.chunks.recorded_numbers import replayed_metadata
from extraction_assets.assets.chunks.start import examine_start
from extraction_assets.assets.chunks.writer import ChunkWriter, Event
from extraction_assets.catalog import MODEL_ACTIVATIONS, TOP_K_TABLE
from extraction_assets.execution.assignment import Alone, Assignment
from extraction_assets.execution.damage import is_sound
from extraction_assets.execution.keys import Target, chunk_targets
from extraction_assets.execution.lineage import Lineage
from extraction_assets.execution.loaded_models import LoadedModels
from extraction_assets.execution.progress import Progress
from extraction_assets.execution.warm_up import WarmUp
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.resources import GpuResource
from extraction_assets.resources.utilization import UtilizationSampler
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_record import checks_of
from extraction_assets.stores.content_hashes import read_files_on_trust


class ChunkRun:
    """Computes chunks one after the other on one device; a context manager, which joins the writers and the sampler."""

    def __init__(
        self,
        plan: ExtractionPlan,
        gpu: GpuResource,
        device: torch.device,
        selected: Collection[dg.AssetKey],
        lineage: Lineage,
        logger: logging.Logger,
        assignment: Assignment | None = None,
    ) -> None:
        self._plan, self._lineage, self._logger = plan, lineage, logger
        self._assignment = assignment or Alone()
        self._targets = [target for target in chunk_targets(plan.settings) if target.key in selected]
        self._loaded = LoadedModels(
            plan.extraction,
            {target.sae for target in self._targets if target.sae is not None},
            gpu,
            device,
            logger,
            every_hook=any(target.asset == MODEL_ACTIVATIONS for target in self._targets),
        )
        self._writer = ChunkWriter(plan, self._events, self._assignment.durable, logger)
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint-reader")
        self._read: Future[None] | None = None
        """Of the checkpoints whose hashes were taken on trust; before its end no chunk is written."""
        self._coming: PreparedChunk | None = None
        """The next chunk, if its first forward pass is queued."""
        self._work = deque[tuple[Chunk, list[Target]]]()
        """What is left of the run's plan."""
        self._ahead: tuple[Chunk, list[Target]] | None = None
        """The next chunk, if this run has taken it."""
        self._usage = UtilizationSampler(device, logger)
        self._warm_up = WarmUp(device, logger)

    def __enter__(self) -> Self:
        self._usage.__enter__()
        self._warm_up.__enter__()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._usage.__exit__(error_type, error, traceback)
        self._warm_up.__exit__(error_type, error, traceback)
        self._writer.close()
        self._reader.shutdown(wait=True)

    def events(self, chunks: Sequence[Chunk], *, reuse: bool = False) -> Iterator[Event]:
        """Computes chunks and yields each chunk's events once its files are durable.

        With ``reuse`` (a retry, a run of the missing chunks), files on disk are not recomputed: their events are
        recorded again, because a partition without one counts as failed.
        """
        with self._assignment.progress(sum(chunk.num_samples for chunk in chunks), self._logger) as update:
            try:
                missing_targets = yield from self._missing_targets(chunks, update, reuse=reuse)
                if missing_targets:
                    self._begin_reading()
                    examine_start(self._plan, self._loaded, missing_targets, self._warm_up)
                self._work.extend(missing_targets.items())
                while (work := self._take_next()) is not None:
                    yield from self._events_of(*work, update)
                yield from self._events_of_others(update, reuse=reuse)
                yield from self._writer.durable()
            except (Exception, dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
                yield from self._writer.durable_after_failure()  # what was computed before, whatever has happened since
                raise
            except GeneratorExit:  # canceled while Dagster was storing an event: it takes no more of them
                for event in self._writer.durable():
                    self._lineage.report(event)
                raise

    def _events_of_others(self, update: Progress, *, reuse: bool) -> Iterator[Event]:
        """Makes chunks that other runs leave to this one."""
        while (key := self._assignment.take_another()) is not None:
            chunks = [self._plan.settings.chunk(key)]
            missing_targets = yield from self._missing_targets(chunks, update, reuse=reuse)
            for chunk, targets in missing_targets.items():
                yield from self._events_of(chunk, targets, update)

    def _missing_targets(
        self, chunks: Sequence[Chunk], update: Progress, *, reuse: bool
    ) -> Generator[Event, None, dict[Chunk, list[Target]]]:
        """What is to be computed for each chunk. With ``reuse``, everything that exists is recorded first, so that the
        rest of the run, and the time left, is computation alone. Damaged files count as missing."""
        missing_targets = dict[Chunk, list[Target]]()
        for chunk in chunks:
            done = [t for t in self._targets if reuse and is_sound(self._plan, t.asset, chunk, t.sae, self._logger)]
            missing = [target for target in self._targets if target not in done]
            if not missing and not self._assignment.take(chunk.key):
                continue
            yield from self._replayed(chunk, done)
            if missing:
                missing_targets[chunk] = missing
            else:
                update.skip(chunk.num_samples)
                self._assignment.durable(chunk.key)
        return missing_targets

    def _take_next(self) -> tuple[Chunk, list[Target]] | None:
        """The next chunk of the run's plan that this run makes, and what is to be computed for it."""
        if self._ahead is not None:
            taken, self._ahead = self._ahead, None
            return taken
        while self._work:
            chunk, targets = self._work.popleft()
            if self._assignment.take(chunk.key):
                return chunk, targets
        return None

    def _events_of(self, chunk: Chunk, targets: list[Target], update: Progress) -> Iterator[Event]:
        """Computes ``targets`` of a chunk and hands them to a writer."""
        self._begin_reading()
        computed = yield from self._computed(chunk, targets, update)
        yield from self._writer.write(computed, self._read)

    def _begin_reading(self) -> None:
        """Reads checkpoints beside the work, once: what they were taken for is to be true of what is computed."""
        if self._read is None:
            self._read = self._reader.submit(read_files_on_trust)

    def _computed(self, chunk: Chunk, targets: list[Target], update: Progress) -> Generator[Event, None, QueuedChunk]:
        """Computes a chunk; between its batches, yields the events of those before once they are durable: one at a
        time, because storing one takes Dagster longer than a GPU has work queued for."""
        prepared, self._coming = self._coming, None
        plan, loaded, usage = self._plan, self._loaded, self._usage
        steps = compute_chunk(plan, loaded, usage, chunk, targets, update.begin, prepared, self._queue_next)
        del prepared  # it holds the outputs of the first forward pass
        try:
            while True:
                update(next(steps), self._note(chunk))
                yield from self._writer.next_event()
        except StopIteration as done:
            computed: QueuedChunk = done.value
            return computed

    def _queue_next(self) -> None:
        """Queues the first forward pass of the next chunk behind the last one of this, so that the GPU has work while
        this one's tables are finished. What fails here is left to the chunk's own turn: this one's results come first.
        """
        self._ahead = self._take_next()
        if self._ahead is None:
            return
        try:
            self._coming = queue_chunk(self._plan, self._loaded, *self._ahead)
        except Exception as error:  # of whatever kind
            self._logger.debug("chunk %s is not prepared ahead: %s", self._ahead[0].key, error)

    def _note(self, chunk: Chunk) -> str:
        """What progress shows beside the rate."""
        busy = self._usage.gpu_percent
        return f"chunk {chunk.key}, batch {self._loaded.batch.size}" + ("" if busy is None else f", GPU {busy:.0f}%")

    def _events(self, chunk: Chunk, finished: FinishedChunk) -> Iterator[Callable[[], Event]]:
        """Makers of a chunk's events: what one says of its lineage is known when those before it are recorded."""
        for one in finished.written:
            yield partial(self._materialization, chunk, one)
        for evaluation in finished.evaluations:
            yield partial(self._lineage.targeted if finished.written else _as_it_is, evaluation)

    def _materialization(self, chunk: Chunk, written: WrittenFile) -> dg.AssetMaterialization:
        target = written.target
        tags = self._lineage.tags(target.asset, target.sae, chunk)
        return dg.AssetMaterialization(target.key, partition=chunk.key, metadata=written.metadata, tags=tags)

    def _replayed(self, chunk: Chunk, targets: list[Target]) -> Iterator[Event]:
        """Events of a chunk that an earlier run or attempt made durable, with the numbers of that time."""
        for target in targets:
            metadata = replayed_metadata(self._plan, target, chunk, self._lineage.instance)
            yield self._materialization(chunk, WrittenFile(target, metadata))
            if target.asset == TOP_K_TABLE:
                record = self._plan.store.record(self._plan.chunk_path(target.asset, chunk, target.sae))
                for name in checks_of(record):
                    yield self._lineage.targeted(replayed(dg.AssetCheckKey(target.key, name), chunk.key, record))


def _as_it_is(event: Event) -> Event:
    return event
