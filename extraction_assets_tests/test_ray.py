"""An extraction on a Ray cluster of two machines, of which one dies in the middle: PostgreSQL and object storage are
shared, files and process ids are not."""

import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import dagster as dg
import pytest

from extraction_assets.dagster_instance.dead_runs import PLACE_TAG
from extraction_assets.dagster_instance.home import set_up_dagster_home
from extraction_assets.dagster_instance.ray_jobs import job_of
from extraction_assets.execution.keys import chunk_targets, sae_key
from extraction_assets.resources import ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests import forked_dagster, processes
from extraction_assets_tests.cli.several_processes import definitions
from extraction_assets_tests.daemon_lab import DEFINITIONS, request_chunks, wait_for
from extraction_assets_tests.namespaces import NOT_HERE, may_make_hosts
from extraction_assets_tests.object_storage import SECRET, s3_server
from extraction_assets_tests.postgres import Server
from extraction_assets_tests.processes import ROOT, run_module
from extraction_assets_tests.project import Project
from extraction_assets_tests.ray_cluster import Cluster, Machine, cluster
from extraction_assets_tests.rows import all_rows, differences
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow

SAE = "relu"
CHUNKS, IN_A_RUN = 12, 6
MERGED = ("feature_examples", "feature_relations", "feature_directions")

HELD = """
import socket
import time
from pathlib import Path

from extraction_assets.assets.chunks import finish

at_work, write_table, begun = Path(__file__).with_name("at work"), finish.write_table, []


def held(*table):
    begun.append(table)
    if socket.gethostname() == "right":
        at_work.touch()
        time.sleep(600 if len(begun) == 3 else 0)
    while not at_work.exists():
        time.sleep(0.1)
    write_table(*table)


finish.write_table = held
"""
"""Runs on the right node hang over their third table, and others wait until there is one: the two do not follow each
other on the left node, and the one on the right cannot be killed too late."""

DAEMON = """
import runpy
import sys
from pathlib import Path

import dagster as dg
from dagster._daemon import backfill, controller
from extraction_assets.execution.keys import corpus_key
from lab import definitions

look, looked, may_look = backfill.execute_backfill_iteration, [], Path(definitions.__file__).with_name("may look")


def look_once(*arguments, **options):
    if may_look.exists() or not looked:
        looked.append(True)
        yield from look(*arguments, **options)


controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 5
backfill.execute_backfill_iteration = look_once
with dg.DagsterInstance.get() as instance:
    job = definitions.defs.resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, asset_selection=[corpus_key(definitions.settings)])
sys.argv = ["dagster-daemon", "run", "-m", "lab.definitions"]
runpy.run_module("dagster._daemon", run_name="__main__")
"""
"""Makes the corpus, then is Dagster's daemon, which looks for backfills once, and again when it may: one that looked
between the end of the lost run and its retry would take the backfill for failed, and Dagster retries no run of such a
one. What follows the chunks waits until a look has found the backfill ended."""


class Lab(NamedTuple):
    """A project whose runs are jobs of a cluster."""

    cluster: Cluster
    nodes: dict[str, Machine]
    settings: ExtractionSettings
    home: Path
    instance: dg.DagsterInstance
    results: str
    secrets: tuple[str, ...]


def _settings(folder: Path) -> ExtractionSettings:
    """The tiny extraction with one SAE, in runs of half of its chunks, each of one sample."""
    corpus = {"source": str(folder / "texts"), "max_length": 5}
    sizes = {"evaluation_samples": CHUNKS, "chunk_size": 1, "partitions_per_run": IN_A_RUN}
    settings = make_settings(folder, corpus=corpus, **sizes)
    return settings.model_copy(update={"saes": {SAE: settings.saes[SAE]}})


@pytest.fixture
def lab(tiny_folder: Path, tmp_path: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("dagster_ray") is None:
        pytest.skip("Ray is not installed here: the extra 'ray' brings it")
    if not may_make_hosts():
        pytest.skip(NOT_HERE)
    settings, home = _settings(tiny_folder), tmp_path / "dagster"
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").touch()
    (tmp_path / "lab" / "definitions.py").write_text(DEFINITIONS + HELD)
    (tmp_path / "lab" / "settings.json").write_text(settings.model_dump_json())
    results, history = postgres_server.new_database(), postgres_server.new_database()
    monkeypatch.setenv("EXTRACTION_DAGSTER_POSTGRES_URL", history.replace("postgresql:", "postgresql+psycopg2:"))
    _make_home(home)
    (tmp_path / "processes").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if name != processes.SHARED},  # not seen from elsewhere
        **_forks(tmp_path),
        "DAGSTER_HOME": str(home),
        "EXTRACTION_DATABASE_URL": postgres_server.by_socket(results),
        "EXTRACTION_DAGSTER_POSTGRES_URL": postgres_server.by_socket(history).replace(":", "+psycopg2:", 1),
        "EXTRACTION_STORE": "s3://bucket/files",
        "OMP_NUM_THREADS": "1",
        "PATH": os.pathsep.join([str(_programs(tmp_path / "bin")), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "PYTHONWARNINGS": "ignore",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token_hex(32),
    }
    secrets = SECRET, postgres_server.password, environment["RAY_AUTH_TOKEN"]
    with (
        dg.DagsterInstance.from_config(str(home)) as instance,
        cluster(tmp_path, environment) as machines,
        s3_server("bucket", inside=machines.inside) as storage,
    ):
        machines.add(storage.environment)
        nodes = {name: machines.node(name, hidden=home) for name in ("left", "right")}
        yield Lab(machines, nodes, settings, home, instance, results, secrets)
    for url in (results, history):
        postgres_server.drop_database(url)


def _forks(folder: Path) -> dict[str, str]:
    """Variables of processes in which Dagster's own are forks."""
    return {processes.FORK_SERVER: processes.address(), forked_dagster.NOTES: str(folder / "processes")}


def _programs(folder: Path) -> Path:
    """A folder with the command ``dagster``, by which jobs start: it begins with everything imported."""
    folder.mkdir()
    words = shlex.join([sys.executable, "-S", "-m", "extraction_assets_tests.forked_command", "dagster"])
    (folder / "dagster").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (folder / "dagster").chmod(0o755)
    return folder


def _make_home(home: Path) -> None:
    """The home that docs/ray.md says, whose daemon looks more often."""
    home.mkdir()
    text = (ROOT / "deploy" / "ray" / "dagster.yaml").read_text("utf-8")
    assert "poll_interval_seconds: 30" in text
    (home / "dagster.yaml").write_text(text.replace("poll_interval_seconds: 30", "poll_interval_seconds: 5"))
    assert set_up_dagster_home(home, None, 2)[-1] == "pool gpu: at most 2 run(s) at once"


def _switch_on_the_merges(lab: Lab) -> None:
    """The sensor's switch, which only asks the instance: it needs no machine of the cluster."""
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(lab.home),
        "PYTHONPATH": str(lab.home.parent),
        **_forks(lab.home.parent),
    }
    words = ["sensor", "start", "-m", "lab.definitions", "tiny_automation"]
    done = run_module("dagster", words, folder=lab.home.parent, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def _chunk_runs(lab: Lab) -> list[dg.DagsterRun]:
    chunks = {target.key for target in chunk_targets(lab.settings)}
    return [run for run in lab.instance.get_runs() if chunks <= set(run.asset_selection or ())]


def _run_on(lab: Lab, node: str) -> dg.DagsterRun | None:
    """A run of chunks that a process of a node has noted as its own."""
    return next((run for run in _chunk_runs(lab) if f'"{node}"' in run.tags.get(PLACE_TAG, "")), None)


def _chunks_of(lab: Lab, run: dg.DagsterRun | None) -> list[dg.AssetMaterialization]:
    """The tables that a run has recorded."""
    if run is None:
        return []
    logs = lab.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    found = [log.asset_materialization for log in logs]
    return [one for one in found if one is not None and one.asset_key.path[-1] == "top_k_table"]


def _retry(lab: Lab, lost: dg.DagsterRun) -> dg.DagsterRun | None:
    """The run that the daemon has started in the place of a lost one."""
    return next((run for run in lab.instance.get_runs() if run.parent_run_id == lost.run_id), None)


def _is_made(lab: Lab, asset: str) -> bool:
    return lab.instance.get_latest_materialization_event(sae_key(lab.settings, SAE, asset)) is not None


def _rows_of_one_process(settings: ExtractionSettings, folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Without Ray, with files on the local disk and rows in the database of this process's environment."""
    project = Project(settings, folder, results=ResultsResource()).merged()
    project.relations_and_directions()
    return all_rows(os.environ["EXTRACTION_DATABASE_URL"])


@pytest.mark.filterwarnings("ignore:Function `AssetSelection.sources` is deprecated:DeprecationWarning")  # Dagster's
def test_what_a_node_leaves_another_finishes_and_the_rows_are_those_of_one_process(
    lab: Lab, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_chunks(lab.instance, lab.settings, definitions(lab.settings).resolve_asset_graph())
    _switch_on_the_merges(lab)
    lab.cluster.wait_for_nodes()
    lab.cluster.command("daemon", processes.CODE, DAEMON)
    wait_for("a run on the right node", lambda: _run_on(lab, "right"), pause=1)  # each look opens connections
    wait_for("a chunk of the right node", lambda: _chunks_of(lab, _run_on(lab, "right")))
    lab.nodes["right"].kill()
    lost = _run_on(lab, "right")
    assert lost is not None
    begun = _chunks_of(lab, lost)
    assert 0 < len(begun) < IN_A_RUN
    assert lost.status == dg.DagsterRunStatus.STARTED

    monkeypatch.setenv("EXTRACTION_DATABASE_URL", postgres_url)
    rows = _rows_of_one_process(lab.settings, tmp_path / "alone")
    wait_for("the retry", lambda: _retry(lab, lost) is not None, pause=1)
    (lab.home.parent / "lab" / "may look").touch()
    told = "\n".join(log.message for log in lab.instance.all_logs(lost.run_id))
    assert re.search(rf"its Ray job is FAILED: .*\(ray job logs {job_of(lost)}\)", told)
    wait_for("the merge and what follows", lambda: all(_is_made(lab, asset) for asset in MERGED), pause=2)
    retry = _retry(lab, lost)
    assert retry is not None
    assert retry.status == dg.DagsterRunStatus.SUCCESS
    assert '"left"' in retry.tags[PLACE_TAG]
    runs = _chunk_runs(lab)
    assert len(runs) == 3, [(run.run_id, run.parent_run_id, run.status, run.tags) for run in runs]
    (other,) = [run for run in runs if run.run_id not in (lost.run_id, retry.run_id)]
    assert '"left"' in other.tags[PLACE_TAG]
    assert len(_chunks_of(lab, other)) == IN_A_RUN
    made = {str(one.partition): one.metadata for one in _chunks_of(lab, retry)}
    again = {key for key, metadata in made.items() if "recorded_again" in metadata}
    assert len(made) == IN_A_RUN
    assert {str(one.partition) for one in begun} <= again
    assert {made[key]["gpus_given_by_ray"].value for key in made.keys() - again} == {"0"}
    assert differences(rows, all_rows(lab.results)) == ""
    _assert_no_secret_is_told(lab)


def _assert_no_secret_is_told(lab: Lab) -> None:
    """Neither by Ray, which logs jobs, nor by Dagster."""
    told = "\n".join([*lab.cluster.outputs(), *(str(run) for run in lab.instance.get_runs())])
    for run in lab.instance.get_runs():
        told += "\n".join(str(log) for log in lab.instance.all_logs(run.run_id))
    assert "Running entrypoint for job" in told
    assert [secret for secret in lab.secrets if secret in told] == []
