"""How long a run without a terminal waits: for the daemon's queue, its sensor's tick, and a new process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import dagster as dg

from benchmarks.dagster_path import homes, in_own_process, record_corpus, resources
from benchmarks.inputs import SAE_NAME, extraction_settings, random_corpus, store_corpus
from benchmarks.lines import Line
from benchmarks.options import Options
from extraction_assets.assets.chunks.pending import range_tags
from extraction_assets.execution.keys import sae_key
from extraction_assets.settings import ExtractionSettings

MODULE = "benchmark_project"
_DEFINITIONS = """
import json
from pathlib import Path

import dagster as dg
from benchmarks.definitions import definitions
from extraction_assets.settings import ExtractionSettings

given = json.loads((Path(__file__).parent / "given.json").read_text())
defs = definitions(ExtractionSettings.model_validate(given["settings"]), given["gpu"])
"""
_PATIENCE_SECONDS = 600

Found = TypeVar("Found")


def daemon_path(options: Options, folder: Path, count: int) -> Iterator[Line]:
    """Lines of one extraction of ``count`` samples that a daemon runs, from the request to the committed rows."""
    with tempfile.TemporaryDirectory(prefix="home-", dir=folder, ignore_cleanup_errors=True) as name, homes(name):
        home = Path(name)
        settings = extraction_settings(folder, options, count, keep_activations=False)
        store_corpus(settings, random_corpus(count, options), home)
        in_own_process(record_corpus, options, settings)
        write_project(home, options, settings)
        environment = project_environment(home)
        _dagster(environment, "sensor", "start", "-m", MODULE, f"{settings.name}_automation")
        with _daemon(environment, home), dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            _wait_for("the daemon", lambda: instance.get_daemon_statuses().get("QUEUED_RUN_COORDINATOR"))
            tags = json.dumps(range_tags(settings.chunk_keys))
            job = f"{settings.name}_extract"
            _dagster(environment, "job", "launch", "-m", MODULE, "-j", job, "--tags", tags)
            examples = sae_key(settings, SAE_NAME, "feature_examples")
            chunks = _wait_for("the chunks' run", lambda: _ended(instance, lambda run: run.job_name == job))
            merge = _wait_for(
                "the merge's run", lambda: _ended(instance, lambda run: examples in (run.asset_selection or ()))
            )
            yield from _lines(f"daemon, {count:,} samples", chunks, merge)


def _lines(name: str, chunks: dg.RunRecord, merge: dg.RunRecord) -> Iterator[Line]:
    def line(what: str, seconds: float) -> Line:
        return Line("daemon", f"{name}: {what}", seconds, "s", seconds=seconds)

    requested, began, done = _times(chunks)
    merge_requested, merge_began, committed = _times(merge)
    yield line("the chunks' run in the queue, and its process's start", began - requested)
    yield line("run of the chunks", done - began)
    yield line("until the sensor's tick asks for the merge", merge_requested - done)
    yield line("the merge's run in the queue, and its process's start", merge_began - merge_requested)
    yield line("run of the merge, with the report", committed - merge_began)


def _times(record: dg.RunRecord) -> tuple[float, float, float]:
    """When a run was requested, when its first step could begin, and when it had ended."""
    assert record.start_time is not None, "the run has ended"
    assert record.end_time is not None, "the run has ended"
    return record.create_timestamp.timestamp(), record.start_time, record.end_time


def _ended(instance: dg.DagsterInstance, wanted: Callable[[dg.DagsterRun], bool]) -> dg.RunRecord | None:
    """The requested run once it has succeeded. Raises RuntimeError if it has failed."""
    for record in instance.get_run_records():
        run = record.dagster_run
        if wanted(run) and run.is_finished:
            if not run.is_success:
                raise RuntimeError(f"run {run.run_id} of {run.job_name} ended as {run.status.value}")
            return record
    return None


def write_project(home: Path, options: Options, settings: ExtractionSettings) -> None:
    """The extraction as a module ``MODULE`` in ``home``, for processes of Dagster's own."""
    package = home / MODULE
    package.mkdir()
    (package / "__init__.py").write_text(_DEFINITIONS)
    given = {"settings": settings.model_dump(mode="json"), "gpu": resources(options)}
    (package / "given.json").write_text(json.dumps(given))


def project_environment(home: Path) -> dict[str, str]:
    """The environment of processes that load the module in ``home``."""
    path = os.pathsep.join([str(home), *(entry for entry in sys.path if entry), os.getcwd()])
    return {**os.environ, "DAGSTER_HOME": str(home / "dagster"), "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}


def _dagster(environment: dict[str, str], *arguments: str) -> None:
    words = [sys.executable, "-m", "dagster", *arguments]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"dagster {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def _daemon(environment: dict[str, str], home: Path) -> Iterator[None]:
    with (home / "daemon.log").open("wb") as log:
        words = [sys.executable, "-m", "dagster._daemon", "run", "-m", MODULE]
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _wait_for(what: str, look: Callable[[], Found | None]) -> Found:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise RuntimeError(f"waited {_PATIENCE_SECONDS} s in vain for {what}")
