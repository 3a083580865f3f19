"""A run killed while another waits for its slot."""

import dagster as dg
import pytest

from extraction_assets_tests.daemon_lab import Lab, wait_for

pytestmark = pytest.mark.slow

QUEUED = dg.DagsterRunStatus.QUEUED
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


def test_a_killed_run_gives_back_its_slot_and_the_next_one_runs(lab_at_rest: Lab) -> None:
    lab = lab_at_rest
    keys = lab.settings.chunk_keys[:30]
    before = len(lab.durable())
    first = lab.launch_chunks(keys)
    second = lab.launch_chunks(keys[:2])
    lab.start_daemon()  # not sooner: the first run might be over before the second is there
    wait_for("chunks of the first run", lambda: len(lab.durable()) > before + 10)
    assert lab.status(second) == QUEUED  # the pool has one slot
    assert lab.kill_run(first)
    lab.wait_for_status(first, FAILURE)
    lab.wait_for_status(second, SUCCESS)
    retry = wait_for("the daemon's retry", lambda: _children(lab, first))[0]
    lab.wait_for_status(retry, SUCCESS)
    assert set(lab.plan.missing_chunks()).isdisjoint(keys)


def _children(lab: Lab, run_id: str) -> list[str]:
    """Runs that try a run again."""
    return [run.run_id for run in lab.instance.get_runs() if run.parent_run_id == run_id]
