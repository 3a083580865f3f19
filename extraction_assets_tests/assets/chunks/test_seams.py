"""One chunk behind the other: what of the next one is done before this one ends, and when events are recorded."""

import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from extraction_assets.assets.chunks import compute, finish, writer
from extraction_assets.engine.chunk_pass import one_chunk
from extraction_assets.engine.shapes import Samples
from extraction_assets_tests.assets.chunks.conftest import Done
from extraction_assets_tests.project import Project

pytestmark = pytest.mark.slow


def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Queues the next chunk's first forward pass before this one ends; says of each chunk whether its pass was."""
    found = list[bool]()

    def steps(samples: Samples, *given: Any) -> Any:
        *rest, queued, queue_next = given
        found.append(queued is not None)
        computing = one_chunk.chunk_steps(samples, *rest, queued, queue_next)
        yield next(computing)
        if queue_next is not None:
            queue_next()
        return (yield from computing)

    monkeypatch.setattr(compute, "chunk_steps", steps)
    return found


def test_chunks_that_are_queued_ahead_give_the_same_files(
    done: Done, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _as_on_a_gpu(monkeypatch)
    project.chunks()
    assert found == [False, True, True]
    assert project.files() == done.project.files()


def test_what_fails_ahead_is_left_to_the_chunks_own_turn(
    done: Done, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _as_on_a_gpu(monkeypatch)

    def too_large(*_: Any) -> None:
        raise MemoryError("two chunks at once")

    monkeypatch.setattr(compute, "queue_forward", too_large)
    project.chunks()
    assert found == [False] * 3
    assert project.files() == done.project.files()


def test_a_chunk_that_is_read_is_not_queued_ahead(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.chunks()
    found = _as_on_a_gpu(monkeypatch)
    project.chunks(assets=[key for key in project.chunk_assets if key.path[-1] == "top_k_table"])
    assert found == [False] * 3


def test_a_chunks_events_are_recorded_one_between_two_batches(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = list[int]()

    def recorded() -> int:
        return sum(len(project.instance.get_materialized_partitions(key)) for key in project.chunk_assets)

    def counting(samples: Samples, *rest: Any) -> Any:
        steps = one_chunk.chunk_steps(samples, *rest)
        yield next(steps)
        if samples.first_sample == 8:
            deadline = time.monotonic() + 60
            while not recorded() and time.monotonic() < deadline:  # until the chunk before it is durable
                yield 0
            for _ in range(4):
                counts.append(recorded())
                yield 0
        return (yield from steps)

    monkeypatch.setattr(compute, "chunk_steps", counting)
    project.chunks()
    assert counts == [1, 2, 3, 4]


def _begun_chunks(monkeypatch: pytest.MonkeyPatch) -> dict[int, threading.Event]:
    """By first sample: set when the pass over a chunk begins."""
    begun: dict[int, threading.Event] = defaultdict(threading.Event)

    def steps(samples: Samples, *rest: Any) -> Any:
        begun[samples.first_sample].set()
        return (yield from one_chunk.chunk_steps(samples, *rest))

    monkeypatch.setattr(compute, "chunk_steps", steps)
    return begun


def test_a_slow_disk_does_not_hold_up_the_chunk_after_next(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, write_table = _begun_chunks(monkeypatch), finish.write_table

    def slow(*given: Any) -> None:
        assert begun[16].wait(60)
        write_table(*given)

    monkeypatch.setattr(finish, "write_table", slow)
    project.chunks()
    assert project.plan.missing_chunks() == []


def test_one_chunk_is_checked_while_another_waits_for_the_disk(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table, second = finish.write_table, threading.Event()

    def slow(path: Path, *rest: Any) -> None:
        if path.name.startswith("000000000000"):
            assert second.wait(60)
        elif path.name.startswith("000000000008"):
            second.set()
        write_table(path, *rest)

    monkeypatch.setattr(finish, "write_table", slow)
    project.chunks()
    assert project.plan.missing_chunks() == []


def test_large_chunks_wait_for_the_disk(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, write_table = _begun_chunks(monkeypatch), finish.write_table

    def slow(path: Path, *rest: Any) -> None:
        if path.name.startswith("000000000000"):
            assert begun[8].wait(60)
            assert not begun[16].wait(0.5)
        write_table(path, *rest)

    monkeypatch.setattr(writer, "_MOST_BYTES_BEHIND", 0)
    monkeypatch.setattr(finish, "write_table", slow)
    project.chunks()
    assert project.plan.missing_chunks() == []


def test_a_chunk_behind_one_that_fails_is_recorded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, write_table = _begun_chunks(monkeypatch), finish.write_table

    def refused(path: Path, *rest: Any) -> None:
        if path.name.startswith("000000000000"):
            assert begun[16].wait(60)
            raise PermissionError("no")
        write_table(path, *rest)

    monkeypatch.setattr(finish, "write_table", refused)
    with pytest.raises(dg.Failure, match="no"):
        project.chunks()
    assert "000000000008" not in project.plan.missing_chunks()
    assert "000000000008" in project.instance.get_materialized_partitions(project.chunk_assets[-1])


def test_a_table_gets_its_name_after_the_chunks_other_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written at the same time."""
    seen, write_features = list[list[str]](), finish.write_features

    def slow(path: Path, *rest: Any) -> None:
        time.sleep(0.5)
        seen.append([table.name for table in path.parent.parent.glob("top_k_table/0*.parquet")])
        write_features(path, *rest)

    monkeypatch.setattr(finish, "write_features", slow)
    project.chunks(0, 0)
    assert seen == [[], []]  # of two SAEs
    assert project.plan.missing_chunks() == project.settings.chunk_keys[1:]


def test_where_another_file_cannot_be_written_the_chunk_has_no_table(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(finish, "write_features", refused)
    with pytest.raises(dg.Failure, match="no"):
        project.chunks(0, 0)
    assert list(project.plan.store.root.glob("*/*/top_k_table/*.parquet")) == []
