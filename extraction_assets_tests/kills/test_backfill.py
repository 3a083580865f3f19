"""A backfill that Dagster itself splits among the slots of the pool, as it does among GPUs."""

from pathlib import Path

import pytest
from dagster._core.execution.backfill import BulkActionStatus

from extraction_assets.assets.chunks.pending import Pending
from extraction_assets_tests.cli.several_processes import definitions
from extraction_assets_tests.daemon_lab import Lab, request_chunks, wait_for
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow

CHUNKS, IN_A_RUN = 10, 5

TOGETHER = """
import os
import time

from extraction_assets.assets.chunks import finish

runs, write_table = Path(__file__).parent / "runs", finish.write_table


def held(*table):
    runs.mkdir(exist_ok=True)
    (runs / str(os.getpid())).touch()
    until = time.monotonic() + 100
    while len(list(runs.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    write_table(*table)


finish.write_table = held
"""
"""A run waits with its first table for the other one, which else might begin after it: the chunks are tiny."""


@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated:DeprecationWarning")  # Dagster's
def test_runs_of_a_backfill_work_side_by_side_and_their_files_are_those_of_one_run(
    tiny_folder: Path, tmp_path: Path
) -> None:
    sizes = {"chunk_size": 2, "evaluation_samples": 2 * CHUNKS, "partitions_per_run": IN_A_RUN}
    settings = make_settings(tiny_folder, corpus={"source": str(tiny_folder / "texts"), "max_length": 8}, **sizes)
    with Lab(tmp_path / "project", settings) as lab:
        lab.command("setup", "--gpus", "2")
        lab.command("run", "tiny", "--chunks", "0:1")
        before = {run.run_id for run in lab.instance.get_runs()}
        with (lab.folder / "lab" / "definitions.py").open("a") as module:
            module.write(TOGETHER)
        lab.start_daemon()
        backfill = request_chunks(lab.instance, settings, definitions(settings).resolve_asset_graph())
        wait_for("the backfill", lambda: _status(lab, backfill) == BulkActionStatus.COMPLETED_SUCCESS, pause=1)
        records = [one for one in lab.instance.get_run_records() if one.dagster_run.run_id not in before]
        assert Pending(lab.plan, lab.instance).keys == []
    first, second = sorted(((one.start_time or 0), (one.end_time or 0)) for one in records)
    assert second[0] < first[1]
    alone = Project(settings, tmp_path / "alone")
    alone.corpus()
    alone.chunks()
    assert alone.files("tiny/*/top_k_table/**/*.*") == Project(settings, lab.home).files("tiny/*/top_k_table/**/*.*")


def _status(lab: Lab, backfill: str) -> BulkActionStatus | None:
    found = lab.instance.get_backfill(backfill)
    assert found is not None
    assert found.status not in (BulkActionStatus.FAILED, BulkActionStatus.COMPLETED_FAILED), found.error
    return found.status
