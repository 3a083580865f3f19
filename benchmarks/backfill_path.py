"""The chunks of an extraction by a backfill of Dagster's own, on several GPUs of one host."""

import json
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg

from benchmarks.daemon_project import MODULE, daemon, python, wait_for, write_project
from benchmarks.dagster_path import homes, in_own_process, record_corpus, resources
from benchmarks.gpus_path import GpusRan, compared_lines, runs_since, tables_digest
from benchmarks.inputs import SAE_NAME, extraction_settings, random_corpus, store_corpus
from benchmarks.lines import Line
from benchmarks.options import Options
from extraction_assets.catalog import TOP_K_TABLE
from extraction_assets.dagster_instance.home import set_up_dagster_home
from extraction_assets.engine.corpora.tokenize import TokenizedCorpus
from extraction_assets.execution.keys import sae_key
from extraction_assets.settings import ExtractionSettings

_REQUEST = """
mutation ($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
"""As the dialog of Dagster's UI makes it."""


def backfill_path(options: Options, folder: Path, count: int) -> Iterator[Line]:
    """Lines of the chunks of ``count`` samples, tables alone stored: as many runs as GPUs, each with an equal part of
    the partitions. The tables are to be the same, byte for byte."""
    run = partial(_in_new_home, options, folder, random_corpus(count, options))
    yield from compared_lines("backfill", f"backfill, {count:,} samples", count, options.gpus, run)


def _in_new_home(options: Options, folder: Path, corpus: TokenizedCorpus, gpus: int) -> GpusRan:
    with tempfile.TemporaryDirectory(prefix="home-", dir=folder, ignore_cleanup_errors=True) as name, homes(name):
        home = Path(name)
        settings = extraction_settings(folder, options, len(corpus.token_ids), keep_features=False)
        settings = settings.model_copy(update={"partitions_per_run": -(-len(settings.chunks) // gpus)})
        store_corpus(settings, corpus, home)
        in_own_process(record_corpus, options, settings)
        set_up_dagster_home(home / "dagster", None, gpus)
        device = "cpu" if options.torch_device.type == "cpu" else "auto"  # a GPU of its own for each run
        environment = write_project(home, settings, {**resources(options), "device": device})
        with daemon(environment, home), dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            wait_for("the daemon", lambda: instance.get_daemon_statuses().get("BACKFILL"))
            began = time.time()
            backfill = _request(environment, home, settings)
            wait_for("the backfill", lambda: _has_succeeded(instance, backfill))
            return runs_since(instance, settings, began, time.time())._replace(tables=tables_digest(home))


def _request(environment: dict[str, str], home: Path, settings: ExtractionSettings) -> str:
    parameters = {
        "assetSelection": [{"path": sae_key(settings, SAE_NAME, TOP_K_TABLE).path}],
        "partitionNames": settings.chunk_keys,
    }
    answer = home / "answer.json"
    arguments = ("-m", MODULE, "-t", _REQUEST, "-v", json.dumps({"parameters": parameters}), "-o", str(answer))
    python(environment, "-c", "from dagster_graphql.cli import main; main()", *arguments)
    said = json.loads(answer.read_text())
    found = (said.get("data") or {}).get("launchPartitionBackfill") or {}
    if "backfillId" not in found:
        raise RuntimeError(f"Dagster does not begin the backfill: {said}")
    return str(found["backfillId"])


def _has_succeeded(instance: dg.DagsterInstance, backfill: str) -> bool:
    found = instance.get_backfill(backfill)
    status = "" if found is None else found.status.value
    if found is None or status in ("FAILED", "COMPLETED_FAILED", "CANCELED"):
        raise RuntimeError(f"the backfill ended as {status or 'nothing'}: {_first_failure(instance)}")
    return status in ("COMPLETED_SUCCESS", "COMPLETED")


def _first_failure(instance: dg.DagsterInstance) -> str:
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
        for entry in instance.all_logs(run.run_id):
            event = entry.dagster_event
            if event is not None and event.is_step_failure:
                return f"{event.message} {event.step_failure_data.error}"
    return "no step failed"
