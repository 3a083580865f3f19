"""An extraction in a Dagster project on disk, run by a real daemon, whose processes can be killed."""

import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import psutil
import torch
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.execution.backfill import PartitionBackfill

from extraction_assets.dagster_instance.dead_runs import _is_alive, _processes
from extraction_assets.execution.keys import chunk_targets
from extraction_assets.host.processes import is_running
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests import forked_dagster, processes

DEFINITIONS = """
import json
from pathlib import Path

import dagster as dg
from extraction_assets import automation, default_resources
from extraction_assets.component import build_definitions
from extraction_assets.settings import ExtractionSettings

automation.AUTOMATION_SECONDS = automation.RECOVERY_SECONDS = 2  # the daemon looks every 5
settings = ExtractionSettings.model_validate(json.loads((Path(__file__).parent / "settings.json").read_text()))
defs = dg.Definitions.merge(
    build_definitions(settings), dg.Definitions(resources=default_resources(), executor=dg.in_process_executor)
)
"""

Found = TypeVar("Found")


def wait_for(what: str, look: Callable[[], Found], seconds: float = 400, pause: float = 0.2) -> Found:
    """The first true value that ``look`` gives; AssertionError where it gives none in time.

    A look that takes much itself wants a longer pause before the next one, in seconds.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(pause)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def request_chunks(instance: dg.DagsterInstance, settings: ExtractionSettings, graph: BaseAssetGraph[Any]) -> str:
    """Has Dagster fill in all chunks, as the UI's dialog does; the backfill's id."""
    backfill = PartitionBackfill.from_asset_partitions(
        backfill_id="requested",
        asset_graph=graph,
        partition_names=settings.chunk_keys,
        asset_selection=[target.key for target in chunk_targets(settings)],
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id


def _table_of(statistics: Path) -> str:
    """The name of the table that statistics belong to."""
    return f"{statistics.name.partition('.')[0]}.parquet"


class Lab:
    """A project folder with its home; use it as a context manager, which ends what it started."""

    def __init__(self, folder: Path, settings: ExtractionSettings) -> None:
        self.folder, self.settings = folder, settings
        self.home = folder / "home"
        package = folder / "lab"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "definitions.py").write_text(DEFINITIONS)
        (package / "settings.json").write_text(settings.model_dump_json())
        self.environment = {
            **os.environ,
            "EXTRACTION_HOME": str(self.home),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": os.pathsep.join([str(folder), *sys.path]),
            processes.FORK_SERVER: processes.address(),
            forked_dagster.NOTES: str(folder / "processes"),
        }
        (folder / "processes").mkdir()
        self.command("list")  # makes the home
        self._hurry()
        self.instance = dg.DagsterInstance.from_config(str(self.home / "dagster"))
        self._daemon: BaseProcess | None = None

    def _hurry(self) -> None:
        """Shorter waits of the daemon's run monitoring than a user wants."""
        settings = self.home / "dagster" / "dagster.yaml"
        text = settings.read_text()
        for theirs, ours in (
            ("start_timeout_seconds: 300", "start_timeout_seconds: 90"),
            ("seconds: 30", "seconds: 5"),
        ):
            assert theirs in text
            text = text.replace(theirs, ours)
        settings.write_text(text)

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill_everything()
        self.instance.dispose()

    @property
    def plan(self) -> ExtractionPlan:
        return ExtractionPlan(self.settings, ChunkStore(self.home))

    def command(self, *arguments: str, fails: bool = False) -> str:
        """``extraction-assets`` on this project; its output."""
        words = ["--module", "lab.definitions", *arguments]
        done = processes.run_module("extraction_assets.cli", words, folder=self.folder, environment=self.environment)
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def dagster(self, *arguments: str) -> str:
        """The ``dagster`` command on this project; its output."""
        environment = {**self.environment, "DAGSTER_HOME": str(self.home / "dagster")}
        done = processes.run_module("dagster", arguments, folder=self.folder, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def launch_chunks(self, keys: Sequence[str], **tags: str) -> str:
        """Queues a run of the chunk assets over a contiguous range; its id."""
        span = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
        before = self._first_attempts()
        job = f"{self.settings.name}_extract"
        self.dagster("job", "launch", "-m", "lab.definitions", "-j", job, "--tags", json.dumps({**span, **tags}))
        (new,) = self._first_attempts() - before
        return new

    def _first_attempts(self) -> set[str]:
        """Runs that the daemon did not make itself, to try another one again."""
        return {run.run_id for run in self.instance.get_runs() if run.parent_run_id is None}

    def start_daemon(self) -> None:
        environment = {**self.environment, "DAGSTER_HOME": str(self.home / "dagster")}
        (self.folder / "daemon").mkdir(exist_ok=True)  # its output, and that of what it starts
        words = ["run", "-m", "lab.definitions"]
        self._daemon = processes.start_module(
            "dagster._daemon", words, self.folder, environment, self.folder / "daemon"
        )

    def kill_daemon(self) -> None:
        """The daemon alone: its code server and runs go on for a while, as orphans."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.join()
            self._daemon = None

    def kill_everything(self) -> None:
        """Daemon, code servers and runs at once, as a power cut would."""
        everything = self._processes()
        for process in everything:
            _kill(process)
        psutil.wait_procs(everything, timeout=30)
        self.kill_daemon()

    def processes(self, run_id: str) -> list[psutil.Process]:
        """Those that said that they work on a run, and are there."""
        return [psutil.Process(p.pid) for p in _processes(self.instance, run_id) if psutil.pid_exists(p.pid)]

    def kill_run(self, run_id: str) -> bool:
        """The process of a run; whether there was one."""
        found = self.processes(run_id)
        for process in found:
            _kill(process)
        return bool(found)

    def cancel(self, run_id: str) -> None:
        """As the UI's button does."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        self.instance.report_run_canceling(run)
        assert self.instance.run_launcher.terminate(run_id)

    def leftovers(self) -> list[Path]:
        """Temporary files of writers."""
        return list((self.home / self.settings.name).rglob(".*.tmp*"))

    def switch_on(self, *names: str) -> None:
        """Schedules and sensors, as the UI's switches do."""
        for name in names:
            kind = "schedule" if name == f"{self.settings.name}_missing_chunks" else "sensor"
            self.dagster(kind, "start", "-m", "lab.definitions", name)

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def wait_for_status(self, run_id: str, *statuses: dg.DagsterRunStatus, seconds: float = 400) -> None:
        wait_for(f"run {run_id} to be one of {statuses}", lambda: self.status(run_id) in statuses, seconds)

    def wait_for_end(self, run_id: str) -> None:
        """Until the run's process is gone, which may be a moment after the run says that it has ended."""
        processes = _processes(self.instance, run_id)
        assert processes, "the run has begun"
        wait_for(f"the process of run {run_id} to end", lambda: not any(map(_is_alive, processes)), 30)

    def durable(self) -> dict[str, tuple[int, int]]:
        """The chunk files that are there: path -> (inode, time of the last change). Statistics and draws are there
        with their table, which comes after them: those of a process that was killed in between are written again."""
        there = [p for suffix in ("safetensors", "parquet", "pq") for p in self._chunk_files(suffix)]
        files = [p for p in there if p.name.count(".") == 1 or p.with_name(_table_of(p)) in there]
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}

    def _chunk_files(self, suffix: str) -> list[Path]:
        return list(self.home.glob(f"{self.settings.name}/**/[!.]*.{suffix}"))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the results database; none before its tables are made."""
        path = self.home / "results.sqlite"
        if not path.is_file():
            return []
        with contextlib.closing(sqlite3.connect(path)) as connection:
            made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'feature_activations'").fetchall()
            return connection.execute(query).fetchall() if made else []

    def _processes(self) -> list[psutil.Process]:
        """All that work on this project: forks, each of which has noted its number."""
        notes = [(int(note.name), note.stat().st_mtime) for note in (self.folder / "processes").iterdir()]
        return [psutil.Process(number) for number, began in notes if is_running(number, began)]


def _kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return
