"""Processes killed by SIGKILL at random moments, over a real daemon."""

import random
import time
from pathlib import Path

import pytest
from pyarrow import parquet
from safetensors.numpy import load_file

from extraction_assets.assets.chunks.pending import Pending
from extraction_assets.dagster_instance.dead_runs import alive_runs, run_to_be_retried, works_on
from extraction_assets.execution.keys import REUSE_TAG, sae_key
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests.daemon_lab import Lab, wait_for
from extraction_assets_tests.kills.build import ROWS, unchanged
from extraction_assets_tests.project import Project

pytestmark = pytest.mark.slow

DONE = "done"
PAUSE = 2
"""Seconds between two looks at the runs, each of which may start a process."""


def test_kills_at_random_moments_lose_nothing_that_was_done(lab: Lab, uninterrupted: Project, seed: int) -> None:
    moments, durable = random.Random(seed), lab.durable()
    for victim in ("run", "everything", "daemon", "run", "everything"):
        run_id = wait_for(
            "a run's process, or all to be done", lambda: _running(lab, _runs_of_the_missing(lab)), pause=PAUSE
        )
        if run_id == DONE:
            break
        time.sleep(moments.uniform(0, 4))
        _kill(lab, victim, run_id)
        durable = unchanged(durable, lab.durable())
    wait_for("all to be done", lambda: not _runs_of_the_missing(lab), seconds=900, pause=PAUSE)
    unchanged(durable, lab.durable())
    assert "2 merges" in lab.command("run", "tiny", "--missing")
    assert lab.rows(ROWS) == uninterrupted.rows(ROWS)
    assert _contents(lab.home, lab.settings) == _contents(uninterrupted.home, lab.settings)
    assert lab.instance.get_materialized_partitions(sae_key(lab.settings, "relu", "top_k_table")) == {
        *lab.settings.chunk_keys
    }


def _runs_of_the_missing(lab: Lab) -> list[str]:
    """The runs that go on, be they some that the daemon tries again, or a new one; none once nothing is missing."""
    concerns = works_on(lab.instance, "tiny")
    alive = alive_runs(lab.instance, concerns)
    if any(lab.processes(run.run_id) for run in alive):
        return [run.run_id for run in alive]
    lab.command("recover")
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


def _contents(home: Path, settings: ExtractionSettings) -> dict[tuple[str, str], object]:
    """What the files of all chunks hold, bit for bit, by asset and chunk and by kind of file.

    Not where the activations come from: a run that goes on after a kill between two files of a chunk encodes those that
    the killed one has stored, and its tables' records say so.
    """
    found: dict[tuple[str, str], object] = {}
    for path in sorted((home / settings.name).rglob("*-*.*")):
        if not path.name.startswith("."):
            chunk, *kind = path.name.split(".")
            found[str(path.parent.relative_to(home) / chunk), ".".join(kind[-2:])] = _content(path)
    return found


def _content(path: Path) -> object:
    if path.suffix in (".parquet", ".pq"):
        return parquet.read_table(path).replace_schema_metadata()
    if path.suffix == ".safetensors":
        return {name: (array.dtype, array.shape, array.tobytes()) for name, array in load_file(path).items()}
    return path.read_bytes()
