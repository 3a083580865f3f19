"""A run killed while another waits for its slot, and schedule and automation are on."""

import dagster as dg
import pytest

from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.daemon_lab import Lab, wait_for
from extraction_assets_tests.kills.build import ROWS, make_chunks
from extraction_assets_tests.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ExtractionSettings:
    """Fewer chunks than the other tests have: one run is killed here, while it makes two thirds of them."""
    return make_chunks(tmp_path_factory.mktemp("tiny"), 30)


@pytest.fixture(scope="module")
def at_once(settings: ExtractionSettings, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same samples in one chunk, which gives the same rows."""
    whole = settings.model_copy(update={"chunk_size": settings.evaluation_samples})
    return Project(whole, tmp_path_factory.mktemp("at_once")).merged()


def test_a_killed_run_gives_back_its_slot_and_the_schedule_computes_what_is_missing_and_the_merge_follows(
    lab_at_rest: Lab, at_once: Project
) -> None:
    lab, keys = lab_at_rest, lab_at_rest.settings.chunk_keys
    before = len(lab.durable())
    first = lab.launch_chunks(keys[:20])
    second = lab.launch_chunks(keys[:2])
    lab.start_daemon()  # not sooner: the first run might be over before the second is there
    wait_for("chunks of the first run", lambda: len(lab.durable()) > before + 10)
    assert lab.status(second) == dg.DagsterRunStatus.QUEUED  # the pool has one slot
    assert lab.kill_run(first)
    lab.switch_on("tiny_missing_chunks", "tiny_automation")
    lab.wait_for_status(first, dg.DagsterRunStatus.FAILURE)
    lab.wait_for_status(second, dg.DagsterRunStatus.SUCCESS)
    retry = wait_for("the daemon's retry", lambda: _children(lab, first))[0]
    lab.wait_for_status(retry, dg.DagsterRunStatus.SUCCESS)
    wait_for("the merged examples", lambda: len(lab.rows("SELECT 1 FROM extractions")) == 2, seconds=900)
    assert [row[3:] for row in lab.rows(ROWS)] == [row[3:] for row in at_once.rows(ROWS)]
    merged = [(name, sae, lab.plan.merge_fingerprint(sae)) for name, sae in (("tiny", "relu"), ("tiny", "topk"))]
    assert sorted({row[:3] for row in lab.rows(ROWS)}) == merged
    (tick, *_) = lab.instance.get_ticks(*_origin(lab, "tiny_missing_chunks"), limit=1) or [None]
    assert tick is not None


def _children(lab: Lab, run_id: str) -> list[str]:
    """Runs that try a run again."""
    return [run.run_id for run in lab.instance.get_runs() if run.parent_run_id == run_id]


def _origin(lab: Lab, name: str) -> tuple[str, str]:
    (state,) = [state for state in lab.instance.all_instigator_state() if state.name == name]
    return state.instigator_origin_id, state.selector_id
