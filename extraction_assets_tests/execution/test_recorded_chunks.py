"""What the history says of chunks: exact by data version, and by code version from one event a run."""

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

from extraction_assets.execution import recorded_chunks as module
from extraction_assets.execution.recorded_chunks import RecordedChunks, recorded_chunks

TABLE = dg.AssetKey(["tiny", "relu", "top_k_table"])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The events that are read, in the order of reading."""
    found: list[int] = []
    look = module._read_code_versions

    def noted(instance: dg.DagsterInstance, asset: dg.AssetKey, events: Sequence[int]) -> list[str | None]:
        found.extend(events)
        return look(instance, asset, events)

    monkeypatch.setattr(module, "_read_code_versions", noted)
    return found


def record(instance: dg.DagsterInstance, run: str, chunk: str, code: str | None, data: str | None = None) -> None:
    """An event of a chunk, by default with its current data version."""
    tags = {"dagster/data_version": f"data of {chunk}" if data is None else data}
    tags |= {} if code is None else {"dagster/code_version": code}
    event = dg.AssetMaterialization(TABLE, partition=chunk, tags=tags)
    said = DagsterEvent("ASSET_MATERIALIZATION", "job", event_specific_data=StepMaterializationData(event))
    instance.event_log_storage.store_event(EventLogEntry(None, "info", "", run, time.time(), dagster_event=said))


def found(instance: dg.DagsterInstance, *chunks: str) -> RecordedChunks:
    return recorded_chunks(instance, TABLE, {chunk: f"data of {chunk}" for chunk in chunks}, "new")


def test_both_versions_of_the_latest_event_count(instance: dg.DagsterInstance) -> None:
    record(instance, "first", "current", "old")
    record(instance, "first", "other code", "new")
    record(instance, "first", "other data", "new")
    record(instance, "first", "no longer a chunk", "new")
    record(instance, "second", "current", "new")
    record(instance, "third", "other code", "old")
    record(instance, "fourth", "other data", "new", "data before")
    record(instance, "fifth", "made by hand", None)
    chunks = ("current", "other code", "other data", "made by hand", "never made")
    assert found(instance, *chunks) == ({"current"}, {"other code", "other data", "made by hand"})


def test_one_event_of_each_run_is_read(instance: dg.DagsterInstance, read: list[int]) -> None:
    chunks = [str(number) for number in range(6)]
    for number, chunk in enumerate(chunks):
        record(instance, "even" if number % 2 == 0 else "odd", chunk, "new" if number % 2 == 0 else "old")
    assert found(instance, *chunks) == ({"0", "2", "4"}, {"1", "3", "5"})
    assert read == [5, 6]


def test_each_event_that_no_run_has_is_read(instance: dg.DagsterInstance, read: list[int]) -> None:
    for chunk, code in (("a", "new"), ("b", "old"), ("c", "new")):
        record(instance, "", chunk, code)
    assert found(instance, "a", "b", "c") == ({"a", "c"}, {"b"})
    assert len(read) == 3


def test_no_event_of_another_data_version_is_read(instance: dg.DagsterInstance, read: list[int]) -> None:
    record(instance, "run", "a", "new", "data before")
    assert found(instance, "a") == (set(), {"a"})
    assert found(instance) == (set(), set())
    assert read == []


@pytest.mark.parametrize("starts", [[0], [0, 1], [0, 63], [0, 10, 40], [0, 8, 16, 17, 30, 50]])
def test_of_many_runs_few_are_read_and_every_long_stretch_is_found(
    instance: dg.DagsterInstance, read: list[int], monkeypatch: pytest.MonkeyPatch, starts: list[int]
) -> None:
    """64 runs of which every eighth is read: where the code version changes from one to another is found exactly."""
    monkeypatch.setattr(module, "_READ_EVENTS", 8)
    runs = [f"{number:02}" for number in range(64)]
    code = {run: ("new", "old")[sum(start <= number for start in starts) % 2] for number, run in enumerate(runs)}
    for run in runs:
        record(instance, run, run, code[run])
    new = {run for run in runs if code[run] == "new"}
    assert found(instance, *runs) == (new, set(runs) - new)
    assert len(read) == len(set(read)) <= 9 + 3 * len(starts)


def test_of_many_runs_a_few_between_equal_ones_are_missed_and_none_of_few_runs(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [f"{number:02}" for number in range(16)]
    for run in runs:
        record(instance, run, run, "old" if run == "05" else "new")
    assert found(instance, *runs).otherwise == {"05"}
    monkeypatch.setattr(module, "_READ_EVENTS", 4)
    assert found(instance, *runs).otherwise == set()


def test_versions_in_any_order_are_right_where_all_are_read(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(module, "_PAGE_EVENTS", 7)
    draw = random.Random(seed)
    code, chunks = dict[str, str](), [str(number) for number in range(20)]
    run_code = {str(run): draw.choice(["old", "new"]) for run in range(9)}
    for _ in range(60):
        chunk, run = draw.choice(chunks), draw.choice(list(run_code))
        record(instance, run, chunk, run_code[run])
        code[chunk] = run_code[run]
    current = {chunk for chunk, version in code.items() if version == "new"}
    assert found(instance, *chunks) == (current, set(code) - current)


def test_dagster_before_its_summaries_has_every_event_read(
    instance: dg.DagsterInstance, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (EventLogStorage, SqlEventLogStorage):
        monkeypatch.delattr(kind, "get_asset_event_summary_records")
    for chunk, code in (("a", "new"), ("b", "old"), ("c", "new")):
        record(instance, "run", chunk, code)
    assert found(instance, "a", "b", "c") == ({"a", "c"}, {"b"})
    assert len(read) == 3


def test_an_event_that_is_deleted_meanwhile_is_not_current(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(instance, "run", "a", "new")

    def nothing(*_: Any, **__: Any) -> Any:
        return dg.EventRecordsResult([], cursor="", has_more=False)

    monkeypatch.setattr(instance, "fetch_materializations", nothing)
    assert found(instance, "a") == (set(), {"a"})
