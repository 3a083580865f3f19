"""Real processes, killed: by SIGKILL, at random moments, over a real daemon."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from extraction_assets.assets.chunks.pending import Pending
from extraction_assets.dagster_instance.dead_runs import alive_runs, run_to_be_retried, works_on
from extraction_assets.execution.keys import REUSE_TAG, sae_key
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.daemon_lab import Lab, wait_for
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow

CHUNKS = 60
DONE = "done"
STARTED, QUEUED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
ENDED = (SUCCESS, FAILURE, dg.DagsterRunStatus.CANCELED)

ROWS = """
SELECT e.name, e.sae, e.fingerprint, a.neuron_index, a.rank, a.sample_index, a.max_activation, a.positions,
       a.activations
FROM feature_activations a JOIN extractions e ON e.id = a.extraction_id ORDER BY 1, 2, 4, 5
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ExtractionSettings:
    folder = tmp_path_factory.mktemp("tiny")
    corpus = {"source": str(folder / "texts"), "max_length": 5}
    return make_settings(folder, corpus=corpus, chunk_size=1, evaluation_samples=CHUNKS, schedule="* * * * *")


@pytest.fixture(scope="module")
def uninterrupted(settings: ExtractionSettings, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(settings, tmp_path_factory.mktemp("uninterrupted")).everything()


@pytest.fixture
def lab(settings: ExtractionSettings, tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "project", settings) as lab:
        lab.command("run", "tiny", "--chunks", "0:1")
        lab.start_daemon()
        yield lab


def test_kills_at_random_moments_lose_nothing_that_was_done(lab: Lab, uninterrupted: Project, seed: int) -> None:
    moments, durable = random.Random(seed), lab.durable()
    for victim in ("run", "everything", "daemon", "run", "everything"):
        run_id = wait_for("a run's process, or all to be done", lambda: _running(lab, _runs_of_the_missing(lab)))
        if run_id == DONE:
            break
        time.sleep(moments.uniform(0, 6))
        _kill(lab, victim, run_id)
        durable = _unchanged(durable, lab.durable())
    wait_for("all to be done", lambda: not _runs_of_the_missing(lab), seconds=300)
    _unchanged(durable, lab.durable())
    assert "2 merges" in lab.command("run", "tiny", "--missing")
    assert lab.rows(ROWS) == uninterrupted.rows(ROWS)
    assert _contents(lab.home, lab.settings) == _contents(uninterrupted.home, lab.settings)
    assert lab.instance.get_materialized_partitions(sae_key(lab.settings, "relu", "top_k_table")) == {
        *lab.settings.chunk_keys
    }


def _runs_of_the_missing(lab: Lab) -> list[str]:
    """The runs that go on, be they some that the daemon tries again, or a new one; none once nothing is missing."""
    lab.command("recover")
    concerns = works_on(lab.instance, "tiny")
    wait_for("the daemon's retries to begin", lambda: run_to_be_retried(lab.instance, concerns) is None)
    alive = alive_runs(lab.instance, concerns)
    if alive:
        return [run.run_id for run in alive]
    pending = Pending(lab.plan, lab.instance).keys
    return [lab.launch_chunks(pending, **{REUSE_TAG: "true"})] if pending else []


def _running(lab: Lab, runs: list[str]) -> str | None:
    """One of the runs that has a process; None where none has one yet."""
    return next((run_id for run_id in runs if lab.processes(run_id)), None) if runs else DONE


def _kill(lab: Lab, victim: str, run_id: str) -> None:
    if victim == "run":
        lab.kill_run(run_id)
        return
    if victim == "daemon":
        lab.kill_daemon()
    else:
        lab.kill_everything()
    lab.start_daemon()


def _unchanged(before: dict[str, tuple[int, int]], now: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """What was durable is there still, and was not written again."""
    assert before.items() <= now.items()
    return now


def _contents(home: Path, settings: ExtractionSettings) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted((home / settings.name).rglob("*-*.*"))
        if not path.name.startswith(".")
    }


def test_a_killed_run_gives_back_its_slot_and_the_next_one_runs(lab: Lab) -> None:
    keys = lab.settings.chunk_keys
    first = lab.launch_chunks(keys)
    second = lab.launch_chunks(keys[:2])
    wait_for("chunks of the first run", lambda: len(lab.durable()) > 10)
    assert lab.status(second) == QUEUED  # the pool has one slot
    assert lab.kill_run(first)
    lab.wait_for_status(first, FAILURE)
    lab.wait_for_status(second, SUCCESS)
    retry = wait_for("the daemon's retry", lambda: _children(lab, first))[0]
    lab.wait_for_status(retry, SUCCESS)
    assert lab.plan.missing_chunks() == []


def _children(lab: Lab, run_id: str) -> list[str]:
    """Runs that try a run again."""
    return [run.run_id for run in lab.instance.get_runs() if run.parent_run_id == run_id]


def test_the_schedule_computes_what_is_missing_and_the_merge_follows(lab: Lab, uninterrupted: Project) -> None:
    dead = lab.launch_chunks(lab.settings.chunk_keys[:30])
    wait_for("chunks of the run", lambda: len(lab.durable()) > 10)
    assert lab.kill_run(dead)
    lab.switch_on("tiny_missing_chunks", "tiny_automation")
    wait_for("the merged examples", lambda: len(lab.rows("SELECT 1 FROM extractions")) == 2, seconds=300)
    assert lab.rows(ROWS) == uninterrupted.rows(ROWS)
    (tick, *_) = lab.instance.get_ticks(*_origin(lab, "tiny_missing_chunks"), limit=1) or [None]
    assert lab.status(dead) in ENDED
    assert tick is not None


def _origin(lab: Lab, name: str) -> tuple[str, str]:
    (state,) = [state for state in lab.instance.all_instigator_state() if state.name == name]
    return state.instigator_origin_id, state.selector_id


def test_a_canceled_run_leaves_whole_chunks_only_and_all_of_them_recorded(lab: Lab) -> None:
    run_id = lab.launch_chunks(lab.settings.chunk_keys)
    wait_for("chunks of the run", lambda: len(lab.durable()) > 30)
    lab.cancel(run_id)
    lab.wait_for_status(run_id, dg.DagsterRunStatus.CANCELED, seconds=30)
    lab.wait_for_end(run_id)
    durable = lab.durable()
    assert lab.leftovers() == []
    table = sae_key(lab.settings, "topk", "top_k_table")
    done = {
        key
        for key in lab.settings.chunk_keys
        if lab.plan.chunk_state("top_k_table", lab.settings.chunk(key), "topk") == "done"
    }
    assert lab.instance.get_materialized_partitions(table) == done
    assert 0 < len(done) < CHUNKS
    time.sleep(2)
    assert lab.durable() == durable  # no writer goes on
    lab.command("run", "tiny", "--missing")
    _unchanged(durable, lab.durable())
    assert lab.plan.missing_chunks() == []
