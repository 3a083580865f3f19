"""Chunks that are written behind the run: their events come in order, each once, whatever fails or interrupts."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from extraction_assets.assets.chunks import writer
from extraction_assets.assets.chunks.finish import FinishedChunk
from extraction_assets.assets.chunks.writer import ChunkWriter, Event
from extraction_assets.settings import Chunk

_EVENTS = 3
"""Of each chunk."""


class _Run:
    """A writer for chunks that are numbers; ``finish`` is done in its threads, and may raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, finish: Callable[[int], object]) -> None:
        def finish_chunk(_plan: object, computed: Any) -> FinishedChunk:
            finish(computed.chunk.first_sample)
            return FinishedChunk([], [])

        monkeypatch.setattr(writer, "finish_chunk", finish_chunk)
        plan: Any = SimpleNamespace(store=SimpleNamespace(files=SimpleNamespace(disk=Path())))
        self.recorded = list[str]()
        self.broken = set[int]()
        """Chunks whose events cannot be made."""
        self.writer = ChunkWriter(plan, self._events, self.recorded.append, logging.getLogger("writer"))

    def write(self, number: int) -> Iterator[Event]:
        unfinished = SimpleNamespace(host_bytes=0, wait=lambda: 0.0)
        computed: Any = SimpleNamespace(chunk=Chunk(number, number, 1), unfinished=unfinished)
        return self.writer.write(computed, None)

    def _events(self, chunk: Chunk, _finished: FinishedChunk) -> Iterator[Callable[[], Event]]:
        def event(number: int) -> Event:
            if chunk.first_sample in self.broken:
                raise OSError("no event")
            return dg.AssetMaterialization("table", partition=f"{chunk.first_sample}.{number}")

        for number in range(_EVENTS):
            yield lambda number=number: event(number)


def _partitions(events: Iterator[Event]) -> list[str]:
    return [str(event.partition) for event in events]


def _of(*chunks: int) -> list[str]:
    return [f"{chunk}.{number}" for chunk in chunks for number in range(_EVENTS)]


def test_events_come_in_order_and_once_however_long_each_chunk_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = random.Random(5)
    run = _Run(monkeypatch, lambda _: time.sleep(waits.choice([0, 0, 0.01])))
    found = list[str]()
    for number in range(12):
        for _ in range(waits.randrange(4)):
            found += _partitions(run.writer.next_event())
        found += _partitions(run.write(number))
    found += _partitions(run.writer.durable())
    assert found == _of(*range(12))
    assert run.recorded == [Chunk(number, number, 1).key for number in range(12)]
    run.writer.close()


def test_an_event_that_was_not_taken_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is closed, or interrupted, while it waits for its event to be stored."""
    run = _Run(monkeypatch, lambda _: None)
    list(run.write(0))
    events = run.writer.durable()
    assert [str(next(events).partition), str(next(events).partition)] == _of(0)[:2]
    events.close()  # type: ignore[attr-defined]
    assert _partitions(run.writer.durable()) == _of(0)[1:]
    run.writer.close()


def test_two_chunks_that_fail_are_both_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(number: int) -> None:
        raise PermissionError(f"chunk {number} is refused")

    run = _Run(monkeypatch, refuse)
    for number in range(2):
        list(run.write(number))
    assert _partitions(run.writer.durable_after_failure()) == []
    assert [record.message for record in caplog.records] == ["chunk 0 is refused", "chunk 1 is refused"]
    run.writer.close()


def test_events_that_cannot_be_made_keep_no_other_chunk_from_being_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    run = _Run(monkeypatch, lambda _: None)
    run.broken.add(0)
    for number in range(2):
        list(run.write(number))
    with pytest.raises(OSError, match="no event"):
        list(run.writer.durable())
    assert _partitions(run.writer.durable_after_failure()) == _of(1)
    assert run.recorded == [Chunk(1, 1, 1).key]
    run.writer.close()
