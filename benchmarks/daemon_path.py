"""How long a run without a terminal waits: for the daemon's queue, its sensor's tick, and a new process."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg

from benchmarks import daemon_project
from benchmarks.daemon_project import MODULE, daemon, wait_for, write_project
from benchmarks.dagster_path import homes, in_own_process, record_corpus, resources
from benchmarks.inputs import SAE_NAME, extraction_settings, random_corpus, store_corpus
from benchmarks.lines import Line
from benchmarks.options import Options
from extraction_assets.assets.chunks.pending import range_tags
from extraction_assets.execution.keys import sae_key


def daemon_path(options: Options, folder: Path, count: int) -> Iterator[Line]:
    """Lines of one extraction of ``count`` samples that a daemon runs, from the request to the committed rows."""
    with tempfile.TemporaryDirectory(prefix="home-", dir=folder, ignore_cleanup_errors=True) as name, homes(name):
        home = Path(name)
        settings = extraction_settings(folder, options, count, keep_activations=False)
        store_corpus(settings, random_corpus(count, options), home)
        in_own_process(record_corpus, options, settings)
        environment = write_project(home, settings, resources(options))
        daemon_project.command(environment, "dagster", "sensor", "start", "-m", MODULE, f"{settings.name}_automation")
        with daemon(environment, home), dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            wait_for("the daemon", lambda: instance.get_daemon_statuses().get("QUEUED_RUN_COORDINATOR"))
            tags = json.dumps(range_tags(settings.chunk_keys))
            job = f"{settings.name}_extract"
            daemon_project.command(environment, "dagster", "job", "launch", "-m", MODULE, "-j", job, "--tags", tags)
            examples = sae_key(settings, SAE_NAME, "feature_examples")
            chunks = wait_for("the chunks' run", lambda: _ended(instance, lambda run: run.job_name == job))
            merge = wait_for(
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
