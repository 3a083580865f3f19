"""Writing computed chunks while others are computed, and giving their events in order once their files are durable."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock

import dagster as dg

from extraction_assets.assets.chunks.compute import QueuedChunk
from extraction_assets.assets.chunks.finish import FinishedChunk, finish_chunk
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation

_MOST_BEHIND = 2
"""Chunks that are being written, or are and not recorded yet, while another one is computed. A disk takes now less, now
more time for a chunk than a GPU, and its events are recorded between batches: with one alone the GPU would wait for
either."""
_MOST_BYTES_BEHIND = 1 << 30
"""Of a chunk that is not the only one behind: its activations and features are in pinned memory."""


class ChunkWriter:
    """Writes chunks, each in a thread of its own: one is checked and compressed while another waits for the disk.

    ``events_of`` makes the makers of a chunk's events: what one says of its lineage is known when those before it are
    recorded. ``recorded`` is called with a chunk's key after its last event.
    """

    def __init__(
        self,
        plan: ExtractionPlan,
        events_of: Callable[[Chunk, FinishedChunk], Iterator[Callable[[], Event]]],
        recorded: Callable[[str], None],
        logger: logging.Logger,
    ) -> None:
        self._plan, self._events_of, self._recorded, self._logger = plan, events_of, recorded, logger
        self._threads = ThreadPoolExecutor(max_workers=_MOST_BEHIND, thread_name_prefix="chunk-writer")
        self._behind = deque[_ChunkBeingWritten]()
        """Chunks that are computed and not recorded yet, in their order."""

    def close(self) -> None:
        """Waits for the files that are being written."""
        self._threads.shutdown(wait=True)

    def write(self, computed: QueuedChunk, checkpoints: Future[None] | None) -> Iterator[Event]:
        """Takes a chunk; first gives the events of those before it as far as there is no room for one more. It is
        written once ``checkpoints``, of which it was made, have been read."""
        most = self._most_behind(computed)
        if len(self._behind) >= most:
            computed.unfinished.wait()  # what the disk takes does not count as the pass's time
        while len(self._behind) >= most:
            yield from self._record(self._behind[0])
        written = _ChunkBeingWritten(computed.chunk, partial(self._finish, computed, checkpoints))
        self._behind.append(written)
        self._threads.submit(written.write)

    def next_event(self) -> Iterator[Event]:
        """One event of the first chunk that is behind, if its files are durable. Fails as ``durable``."""
        if self._behind and self._behind[0].finished.done():
            yield from self._record(self._behind[0], most=1)

    def durable(self) -> Iterator[Event]:
        """Waits for the files of the chunks that are behind, and gives the rest of their events. Fails where a check of
        one failed."""
        for pending in self._behind:
            self._threads.submit(pending.write)  # again, where an interrupt came before or during the first time
        while self._behind:
            yield from self._record(self._behind[0])

    def durable_after_failure(self) -> Iterator[Event]:
        """As ``durable``, but what fails of one chunk keeps no other from being recorded: the failure that came first
        is the run's."""
        for _ in range(len(self._behind)):
            try:
                yield from self.durable()
            except Exception as error:  # of whatever kind
                self._logger.error("%s", error)

    def _most_behind(self, computed: QueuedChunk) -> int:
        """Of large chunks one, for the sake of memory; of those that are uploaded too, which first lie in scratch."""
        is_uploaded = self._plan.store.files.disk is None
        return 1 if is_uploaded or computed.unfinished.kept_bytes > _MOST_BYTES_BEHIND else _MOST_BEHIND

    def _finish(self, computed: QueuedChunk, checkpoints: Future[None] | None) -> FinishedChunk:
        """In a thread of this writer."""
        if checkpoints is not None:
            checkpoints.result()
        return finish_chunk(self._plan, computed)

    def _record(self, pending: "_ChunkBeingWritten", most: int | None = None) -> Iterator[Event]:
        """Waits for the files of the first chunk that is behind and gives its events, at most so many of them. Fails
        where a check of it failed."""
        try:
            finished = pending.finished.result()
        except Exception:  # of its thread; an interrupt of this one leaves the chunk to be waited for again
            self._behind.popleft()
            raise
        if pending.events is None:
            pending.events = deque(self._events_of(pending.chunk, finished))
        for _ in range(len(pending.events) if most is None else most):
            if pending.events:
                yield pending.events[0]()
                pending.events.popleft()  # only now: an interrupt on the way must not lose the event
        if not pending.events:
            self._behind.popleft()
            finished.refuse()
            self._recorded(pending.chunk.key)


class _ChunkBeingWritten:
    """A chunk that a thread has, or is about to get."""

    def __init__(self, chunk: Chunk, work: Callable[[], FinishedChunk]) -> None:
        self.chunk = chunk
        self.finished = Future[FinishedChunk]()
        self.events: deque[Callable[[], Event]] | None = None
        """Makers of those that are not recorded yet; None before the first one is."""
        self._work: Callable[[], FinishedChunk] | None = work
        self._taking = Lock()

    def write(self) -> None:
        """Makes the chunk durable; does nothing the second time."""
        with self._taking:
            work, self._work = self._work, None
        if work is None:
            return
        try:
            self.finished.set_result(work())
        except BaseException as error:
            self.finished.set_exception(error)
