"""What is tried again, and what is reported at once."""

import fcntl
import random
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from extraction_assets.assets.chunks import finish as chunk_writer
from extraction_assets.assets.chunks import run as chunk_run
from extraction_assets.database.errors import DatabaseError, DatabaseUnavailableError
from extraction_assets.engine.chunk_pass.context import NonFiniteError
from extraction_assets.engine.hub import HubUnavailable
from extraction_assets.execution import failures as faults
from extraction_assets.settings import Chunk, ExtractionSettings
from extraction_assets_tests.processes import Hurried
from extraction_assets_tests.project import SILENT, Project
from extraction_assets_tests.tiny import make_settings


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        DatabaseUnavailableError("the database is away"),
        HubUnavailable("the hub does not answer"),
    ],
)
def test_what_time_may_mend_is_tried_again_each_time_later(error: Exception) -> None:
    waits = []
    for attempt in range(faults.MAX_RETRIES):
        with pytest.raises(dg.RetryRequested) as caught, faults.as_dagster_failure(attempt):
            raise error
        waits.append(caught.value.seconds_to_wait)
    assert waits == [0.01, 0.02, 0.04]
    with pytest.raises(dg.Failure) as last, faults.as_dagster_failure(faults.MAX_RETRIES):
        raise error
    assert last.value.description == str(error)


def test_a_wait_before_the_next_attempt_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    away = HubUnavailable("a long sentence with advice")
    for attempt, error in enumerate((away, OSError(5, "Input/output error"))):
        with pytest.raises(dg.RetryRequested), faults.as_dagster_failure(attempt):
            raise error
    assert [record.getMessage() for record in caplog.records] == [
        "the Hugging Face hub does not answer: tried again in 0.01 s (attempt 2 of 4)",
        "[Errno 5] Input/output error: tried again in 0.02 s (attempt 3 of 4)",
    ]


@pytest.mark.parametrize(
    "error",
    [
        NonFiniteError("NaN in sample 3"),
        FileNotFoundError("no checkpoint"),
        PermissionError(13, "Permission denied"),
        DatabaseError("wrong password"),
    ],
)
def test_what_a_person_has_to_mend_is_reported_at_once(error: Exception) -> None:
    with pytest.raises(dg.Failure) as caught, faults.as_dagster_failure(0):
        raise error
    assert caught.value.allow_retries is False
    assert caught.value.description == str(error)


@pytest.mark.slow
def test_a_fault_while_writing_is_retried_and_only_the_rest_is_computed(
    tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(make_settings(tiny_folder), home)
    project.corpus()
    written, computed, failed = chunk_writer.write_table, [], []
    compute = chunk_run.compute_chunk

    def fail_once(path: Path, *args: Any) -> None:
        if path.name.startswith("000000000008") and not failed:
            failed.append(path)
            raise OSError(28, "No space left on device")
        written(path, *args)

    def count(plan: Any, loaded: Any, usage: Any, chunk: Chunk, *args: Any) -> Any:
        computed.append(chunk.key)
        return compute(plan, loaded, usage, chunk, *args)

    monkeypatch.setattr(chunk_writer, "write_table", fail_once)
    monkeypatch.setattr(chunk_run, "compute_chunk", count)
    assert project.chunks().success
    assert [computed.count(key) for key in ("000000000000", "000000000008")] == [1, 2]
    assert computed.count("000000000016") in (1, 2)  # once where it was computed before the fault was noticed
    assert project.plan.missing_chunks() == []


def _run(settings: ExtractionSettings, home: Path, go: Path, merge: bool) -> None:
    """In a process of its own: chunks, then the merge, once the lock file ``go`` is released."""
    project = Project(settings, home)
    with go.open() as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
    if merge:
        project.merge("relu")
    else:
        project.chunks()


@pytest.mark.slow
@pytest.mark.parametrize("merge", [False, True], ids=["chunks", "merges"])
def test_two_runs_of_the_same_at_once_are_safe(tiny_folder: Path, home: Path, merge: bool) -> None:
    project = Project(make_settings(tiny_folder), home)
    project.corpus()
    if merge:
        project.chunks()
    go = home / "go"
    go.touch()
    with go.open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        both = [Hurried().Process(target=_run, args=(project.settings, home, go, merge)) for _ in range(2)]
        for process in both:
            process.start()
        time.sleep(1)
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    alone = Project(project.settings, home.parent / "alone").merged()
    project.merge("relu")
    assert project.files("tiny/**/*-*") == alone.files("tiny/**/*-*")
    rows = "SELECT neuron_index, rank, sample_index, max_activation, positions FROM feature_activations a"
    rows += " JOIN extractions e ON e.id = a.extraction_id WHERE e.sae = 'relu' ORDER BY 1, 2"
    assert project.rows(rows) == alone.rows(rows)


@pytest.mark.slow
def test_a_process_killed_at_many_moments_loses_only_what_it_was_doing(
    tiny_folder: Path, home: Path, seed: int
) -> None:
    settings = make_settings(tiny_folder, chunk_size=1)
    project = Project(settings, home)
    project.corpus()
    moments, kills, done = random.Random(seed), 0, project.files("tiny/**/[!.]*-*")
    while project.plan.missing_chunks() and kills < 20:
        keys = project.plan.missing_chunks()
        process = Hurried().Process(target=_run_from, args=(settings, home, settings.chunk_keys.index(keys[0])))
        process.start()
        time.sleep(moments.uniform(0.5, 3.0))
        process.kill()
        process.join()
        kills += 1
        now = project.files("tiny/**/[!.]*-*")
        assert done.items() <= now.items()
        done = now
    if project.plan.missing_chunks():
        project.chunks(settings.chunk_keys.index(project.plan.missing_chunks()[0]))
    alone = Project(settings, home.parent / "alone")
    alone.corpus()
    alone.chunks()
    assert project.files("tiny/**/[!.]*-*") == alone.files("tiny/**/[!.]*-*")


def _run_from(settings: ExtractionSettings, home: Path, first: int) -> None:
    Project(settings, home).chunks(first)


def test_what_a_log_line_or_a_failure_quotes_is_shown_and_not_obeyed() -> None:
    @dg.asset
    def quoting(context: dg.AssetExecutionContext) -> None:
        with faults.as_dagster_failure(0, context.log):
            context.log.warning("reading %s", "a\x1b[2J\u202e\nb.txt")
            raise FileNotFoundError("no file a\x1b[2J\u202e\nb.txt")

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([quoting], instance=instance, raise_on_error=False, run_config=SILENT)
        logged = [entry.user_message for entry in instance.all_logs(result.run_id) if not entry.is_dagster_event]
    assert logged == [r"reading a\x1b[2J\u202e⏎b.txt"]
    (failure,) = result.get_step_failure_events()
    assert failure.step_failure_data.user_failure_data.description == r"no file a\x1b[2J\u202e⏎b.txt"
