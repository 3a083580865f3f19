"""A run canceled while it writes chunks."""

import time

import dagster as dg
import pytest

from extraction_assets.execution.keys import sae_key
from extraction_assets_tests.daemon_lab import Lab, wait_for
from extraction_assets_tests.kills.build import CHUNKS, unchanged

pytestmark = pytest.mark.slow


def test_a_canceled_run_leaves_whole_chunks_only_and_all_of_them_recorded(lab: Lab) -> None:
    run_id = lab.launch_chunks(lab.settings.chunk_keys)
    wait_for("chunks of the run", lambda: len(lab.durable()) > 30)
    lab.cancel(run_id)
    lab.wait_for_status(run_id, dg.DagsterRunStatus.CANCELED, seconds=120)
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
    unchanged(durable, lab.durable())
    assert lab.plan.missing_chunks() == []
