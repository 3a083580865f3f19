"""Two hosts that share PostgreSQL and a store: each has a home of its own, a name, a network and process ids."""

import os
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg
import pytest
import torch
from click.testing import CliRunner

from extraction_assets import cli
from extraction_assets.dagster_instance.dead_runs import PLACE_TAG
from extraction_assets_tests.daemon_lab import DEFINITIONS, wait_for
from extraction_assets_tests.namespaces import NOT_HERE, may_make_hosts, start_module
from extraction_assets_tests.postgres import Server
from extraction_assets_tests.processes import STREAMS
from extraction_assets_tests.rows import all_rows
from extraction_assets_tests.tiny import make_settings

pytestmark = pytest.mark.slow

CHUNKS = 12


class Host:
    """Processes on this machine that cannot see those of another, nor its network."""

    def __init__(self, name: str, folder: Path, urls: dict[str, str]) -> None:
        self.name, self.home = name, folder / name
        self._folder = folder
        self._environment = {
            **os.environ,
            **urls,
            "EXTRACTION_HOME": str(self.home),
            "DAGSTER_HOME": "",
            "EXTRACTION_STORE": str(folder / "store"),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
            "PYTHONWARNINGS": "ignore",
        }

    def start(self, *arguments: str) -> BaseProcess:
        self._streams = Path(tempfile.mkdtemp(dir=self._folder))
        words = ["--module", "lab.definitions", *arguments]
        return start_module(self.name, "extraction_assets.cli", words, self._folder, self._environment, self._streams)

    def run(self, *arguments: str) -> None:
        process = self.start(*arguments)
        process.join(400)
        assert process.exitcode == 0, [(self._streams / name).read_text() for name in STREAMS]


@pytest.fixture
def hosts(
    tiny_folder: Path, tmp_path: Path, postgres_server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Host, Host, str]]:
    """Two of them, and the URL of their results."""
    if not may_make_hosts():
        pytest.skip(NOT_HERE)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").touch()
    (tmp_path / "lab" / "definitions.py").write_text(DEFINITIONS)
    settings = make_settings(tiny_folder, chunk_size=2, evaluation_samples=2 * CHUNKS)
    (tmp_path / "lab" / "settings.json").write_text(settings.model_dump_json())
    results, history = postgres_server.new_database(), postgres_server.new_database()
    monkeypatch.setenv("EXTRACTION_DAGSTER_POSTGRES_URL", history.replace("postgresql:", "postgresql+psycopg2:"))
    urls = {
        "EXTRACTION_DATABASE_URL": postgres_server.by_socket(results),
        "EXTRACTION_DAGSTER_POSTGRES_URL": postgres_server.by_socket(history),
    }
    both = Host("left", tmp_path, urls), Host("right", tmp_path, urls)
    for host in both:
        monkeypatch.setenv("EXTRACTION_HOME", str(host.home))
        made = CliRunner().invoke(cli.main, ["--module", "lab.definitions", "setup", "--storage", "postgres"])
        assert made.exit_code == 0, made.output
    yield *both, results
    for url in (results, history):
        postgres_server.drop_database(url)


def _run_of(instance: dg.DagsterInstance, host: Host) -> dg.DagsterRun | None:
    """A run that the processes of a host have noted as theirs."""
    return next((run for run in instance.get_runs() if f'"{host.name}"' in run.tags.get(PLACE_TAG, "")), None)


def test_what_one_host_leaves_the_other_finishes(hosts: tuple[Host, Host, str], tmp_path: Path) -> None:
    left, right, results = hosts
    killed = left.start("run", "tiny")
    tables = tmp_path / "store" / "tiny" / "relu" / "top_k_table"
    wait_for("a chunk of the left host", lambda: len(list(tables.glob("*.parquet"))) > 0, pause=0.02)
    killed.kill()
    killed.join()
    durable = {path.name: path.stat().st_mtime_ns for path in tables.glob("*.parquet")}
    assert len(durable) < CHUNKS, "it was killed too late"
    right.run("run", "tiny", "--missing")
    assert {name: (tables / name).stat().st_mtime_ns for name in durable} == durable
    assert len(all_rows(results)["extractions"]) == 2
    with dg.DagsterInstance.from_config(str(right.home / "dagster")) as instance:
        lost = _run_of(instance, left)
        assert lost is not None
        assert lost.status == dg.DagsterRunStatus.STARTED  # only its own host can say that no process works on it
        left.run("recover")
        assert instance.get_run_by_id(lost.run_id).status == dg.DagsterRunStatus.FAILURE  # type: ignore[union-attr]
