"""Dagster with 12 SAEs of 10,000 partitions each: how long it takes to load, to look at, to tick and to record.

    python -m benchmarks.many_partitions [--chunks 10000] [--saes 12] [--recorded 20] [--postgres URL] [--json FILE]

The engine is simulated (``partitions_history``), everything else is real: the code location in processes of its own,
the web server asked by HTTP what the UI asks, the sensors and the schedule with the instance that a daemon would give
them, events in PostgreSQL. Everything is measured with an empty history, and once more with one of all partitions, of
which a run has recorded ``--recorded`` chunks and the others are copies of its last one. ``--postgres`` is the URL of a
server's empty database; without it a temporary server starts.
"""

import argparse
import contextlib
import contextvars
import functools
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa

from benchmarks.daemon_project import MODULE, write_project
from benchmarks.dagster_path import homes, resources
from benchmarks.definitions import definitions
from benchmarks.partitions_history import (
    EXTRACTION,
    History,
    copy_tables,
    make_inputs,
    tiny_options,
    use_simulated_engine,
)
from extraction_assets.cli.runner import Runner
from extraction_assets.dagster_instance.home import POSTGRES_VARIABLE, prepare_dagster_home
from extraction_assets.execution import lineage
from extraction_assets.execution.keys import sae_key
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.resources import ChunkStoreResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore

_PATIENCE_SECONDS = 120
_RUNS, _LONG_SECONDS = 3, 5.0

_ERROR = "__typename ... on PythonError { message }"
_GRAPH = """query Graph { assetNodes { id groupName isPartitioned isObservable isMaterializable isExecutable computeKind
    graphName opNames jobNames description hasAssetChecks kinds assetKey { path } dependencyKeys { path }
    dependedByKeys { path } partitionDefinition { description } } }"""
_LIVE = """query Live($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys, loadMaterializations: true) { id opNames
    repository { id } assetKey { path } assetMaterializations(limit: 1) { timestamp runId }
    assetObservations(limit: 1) { timestamp runId } freshnessInfo { currentMinutesLate }
    assetChecksOrError { ... on AssetChecks { checks { name canExecuteIndividually
        executionForLatestMaterialization { id runId status timestamp stepKey evaluation { severity } } } } }
    partitionStats { numMaterialized numMaterializing numPartitions numFailed } }
    assetsLatestInfo(assetKeys: $keys) { id assetKey { path } unstartedRunIds inProgressRunIds
        latestRun { id status endTime } } }"""
_STALE = """query Stale($keys: [AssetKeyInput!]!) { assetNodes(assetKeys: $keys) { id assetKey { path } staleStatus
    staleCauses { key { path } reason category dependency { path } } } }"""
_HEALTH = """query Health($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { __typename ... on AssetNode { id
    partitionKeysByDimension { name type partitionKeys } assetPartitionStatuses { ... on DefaultPartitionStatuses {
    materializedPartitions materializingPartitions failedPartitions } } } } }"""
_CHECK = """query Check($key: AssetKeyInput!, $check: String!) { assetNodeOrError(assetKey: $key) { __typename
    ... on AssetNode { id assetCheckOrError(checkName: $check) { __typename ... on AssetCheck { name
    partitionKeysByDimension { name type partitionKeys } partitionStatuses {
    ... on AssetCheckDefaultPartitionStatuses { succeededPartitions failedPartitions inProgressPartitions
    skippedPartitions executionFailedPartitions } } } } } } }"""
_CATALOG = """query Catalog { assetRecordsOrError(limit: 1000) { %s ... on AssetRecordConnection {
    assets { id key { path } } cursor } } }"""
_READY = "query Ready { workspaceOrError { __typename ... on Workspace { locationEntries { loadStatus } } } }"


class Figure(NamedTuple):
    """One measured figure."""

    what: str
    empty: float | None
    full: float | None
    unit: str = "s"


Figures = dict[str, float]


class Project(NamedTuple):
    """The extraction, and where everything of it lies."""

    home: Path
    settings: ExtractionSettings
    environment: dict[str, str]


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def best_of(work: Callable[[], object]) -> float:
    """The least of some times, after one that is not counted; or that one, where it takes long."""
    first = seconds_of(work)
    return first if first > _LONG_SECONDS else min(seconds_of(work) for _ in range(_RUNS))


def looks(project: Project) -> Figures:
    """Everything that is measured with an empty history and with a full one."""
    return {**_code_location(project), **_user_interface(project), **_ticks(project), **_commands(project)}


def _code_location(project: Project) -> Figures:
    """In a process of its own, which reports the seconds after Python has started."""
    code = (
        "import time; began = time.perf_counter(); import dagster; imported = time.perf_counter();"
        f"from {MODULE} import defs; defs.get_repository_def(); print(imported - began, time.perf_counter() - imported)"
    )

    def once() -> tuple[float, ...]:
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, env=project.environment, capture_output=True, text=True, check=True)
        return tuple(map(float, done.stdout.split()))

    imported, loaded = min(once() for _ in range(_RUNS))
    return {"import dagster": imported, "load the code location": loaded}


def _user_interface(project: Project) -> Figures:
    """What the pages of the UI ask for, by HTTP."""
    settings = project.settings
    sae = next(iter(settings.saes))
    table = {"path": sae_key(settings, sae, "top_k_table").path}
    with _web_server(project) as (ask, ready):
        nodes = ask(_GRAPH, {})["assetNodes"]
        keys = [{"path": node["assetKey"]["path"]} for node in nodes]
        found = {"web server: start to first answer": ready}
        check = {"key": table, "check": "vectorized_matches_legacy"}
        for what, query, variables in (
            ("UI: asset graph", _GRAPH, {}),
            (f"UI: live state of its {len(keys)} assets", _LIVE, {"keys": keys}),
            (f"UI: stale marks of its {len(keys)} assets", _STALE, {"keys": keys}),
            ("UI: catalog", _CATALOG % _ERROR, {}),
            ("UI: partitions of one table", _HEALTH, {"key": table}),
            ("UI: partitions of one check", _CHECK, check),
        ):
            found[what] = best_of(functools.partial(ask, query, variables))
    return found


Ask = Callable[[str, dict[str, Any]], dict[str, Any]]


@contextlib.contextmanager
def _web_server(project: Project) -> Iterator[tuple[Ask, float]]:
    """Asks a web server on loopback; and how long it took to start and load the code location."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def ask(query: str, variables: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:
            found = json.load(answer)
        if found.get("errors"):
            raise RuntimeError(f"the web server refuses a query: {found['errors'][0]['message']}")
        return dict(found["data"])

    began = time.perf_counter()
    words = [sys.executable, "-m", "dagster_webserver", "-m", MODULE, "-h", "127.0.0.1", "-p", str(port)]
    with (project.home / "webserver.log").open("wb") as log:
        process = subprocess.Popen(words, env=project.environment, stdout=log, stderr=log)
    try:
        _wait_until(lambda: _is_loaded(ask), process, project.home / "webserver.log")
        yield ask, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def _is_loaded(ask: Ask) -> bool:
    try:
        entries = ask(_READY, {})["workspaceOrError"]["locationEntries"]
    except OSError:  # it does not listen yet
        return False
    return all(entry["loadStatus"] == "LOADED" for entry in entries)


def _wait_until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the web server did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def _ticks(project: Project) -> Figures:
    """Evaluations of both sensors and of the schedule, as the daemon makes them, in this process."""
    settings = project.settings
    defs = definitions(settings, resources(tiny_options()))
    group = dg.AssetSelection.groups(EXTRACTION)
    found: Figures = {}
    with dg.DagsterInstance.get() as instance:
        recovery = defs.get_sensor_def(f"{EXTRACTION}_recovery")
        found["tick: recovery sensor"] = best_of(
            lambda: recovery.evaluate_tick(dg.build_sensor_context(instance, definitions=defs))
        )
        evaluate = functools.partial(
            dg.evaluate_automation_conditions, defs=defs, instance=instance, asset_selection=group
        )
        began = time.perf_counter()
        first = evaluate()
        found["tick: automation, its first"] = time.perf_counter() - began
        found["… asset partitions that it requests"] = first.total_requested
        found["tick: automation, nothing new"] = best_of(lambda: evaluate(cursor=first.cursor))
        schedule = defs.get_schedule_def(f"{EXTRACTION}_missing_chunks")
        stored = ChunkStoreResource()

        def tick() -> Any:
            context = dg.build_schedule_context(instance, resources={"chunk_store": stored})
            return schedule.evaluate_tick(context)

        requested = tick().run_requests or []
        found["tick: schedule of missing chunks"] = best_of(tick)
        found["… runs that it requests"] = len(requested)
    return found


def _commands(project: Project) -> Figures:
    """Commands of a terminal, from start to end of their processes."""
    found: Figures = {}
    for name, words in (("list", []), ("status", [EXTRACTION])):
        command = [sys.executable, "-m", "extraction_assets.cli", "--module", MODULE, name, *words]
        run = functools.partial(subprocess.run, command, env=project.environment, capture_output=True, check=True)
        found[f"extraction-assets {name}"] = seconds_of(run)
    return found


def record_chunks(project: Project, engine: sa.Engine, count: int) -> Figures:
    """Records the first chunks in one run: what an event costs, and the part of it that looks for earlier events."""
    settings = project.settings
    use_simulated_engine()
    looking = 0.0

    def timed(look: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            nonlocal looking
            began = time.perf_counter()
            try:
                return look(*arguments)
            finally:
                looking += time.perf_counter() - began

        return wrapped

    lineage._latest = timed(lineage._latest)
    with Runner(definitions(settings, resources(tiny_options())), settings, {}) as runner:
        assets = runner.chunk_assets(settings.chunk_keys[:count], only_missing=True)
        before = _count(engine)
        seconds = seconds_of(lambda: runner.make_chunks(settings.chunk_keys[:count], assets, reuse=True))
    events = _count(engine) - before
    return {
        "events a chunk": events / count,
        "milliseconds an event": 1_000 * seconds / events,
        "… of it looking for earlier events": 1_000 * looking / events,
    }


def _count(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.text("SELECT count(*) FROM event_logs")) or 0)


def fill(project: Project, engine: sa.Engine, recorded: int) -> Figures:
    """The files and the history of all other chunks; what the event log holds then."""
    settings = project.settings
    plan = ExtractionPlan(settings, ChunkStore(project.home))
    copy_tables(plan, settings.chunks[recorded - 1], settings.chunks[recorded:])
    with engine.begin() as connection:
        History(connection, plan, settings.chunk_keys[recorded - 1]).copy(settings.chunk_keys[recorded:])
        size = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables"
        total = float(connection.scalar(sa.text(size)) or 0)
    events = _count(engine)
    return {"events in all": events, "event log, GB": total / 1e9, "bytes an event": total / events}


def measure(home: Path, url: str, chunks: int, saes: int, recorded: int) -> list[Figure]:
    """All figures of a home that is empty so far."""
    os.environ[POSTGRES_VARIABLE] = url
    settings = make_inputs(home / "inputs", home, chunks, saes)
    prepare_dagster_home()
    project = Project(home, settings, write_project(home, settings, resources(tiny_options())))
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg2"))
    with Runner(definitions(settings, resources(tiny_options())), settings, {}) as runner:
        runner.materialize_corpus()
    empty = _said("empty history", looks(project))
    # In a context of its own: Dagster would ask an instance that has ended for the state of definitions.
    recording = contextvars.Context().run(record_chunks, project, engine, recorded)
    events = _said("events", {**recording, **fill(project, engine, recorded)})
    full = _said("full history", looks(project))
    engine.dispose()
    found = [Figure(what, seconds, full[what], "" if what.startswith("…") else "s") for what, seconds in empty.items()]
    return found + [Figure(what, None, value, "") for what, value in events.items()]


def _said(what: str, figures: Figures) -> Figures:
    print(f"{what}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    return figures


@contextlib.contextmanager
def _database(url: str | None) -> Iterator[str]:
    """The URL of an empty database, by default of a server that ends with the block."""
    if url is not None:
        yield url
        return
    from extraction_assets_tests.postgres import MISSING, find_programs, running_server

    programs = find_programs()
    if programs is None:
        raise SystemExit(MISSING)
    with running_server(programs) as server:
        yield server.new_database()


def main(arguments: list[str] | None = None) -> list[Figure]:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.many_partitions", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--saes", type=int, default=12)
    parser.add_argument("--recorded", type=int, default=20, help="chunks that a run records; the others are copies")
    parser.add_argument("--postgres", help="URL of an empty database for Dagster's history")
    parser.add_argument("--folder", type=Path, help="where files are stored meanwhile (default: the system's)")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if not 0 < given.recorded < given.chunks:
        parser.error("--recorded: at least 1 and fewer than --chunks")
    folder = tempfile.TemporaryDirectory(prefix="benchmark-partitions-", dir=given.folder)
    with folder as home, homes(home), _database(given.postgres) as url:
        figures = measure(Path(home), url, given.chunks, given.saes, given.recorded)
    versions = f"dagster {dg.__version__}, Python {platform.python_version()}, cores {os.cpu_count()}"
    print(f"{given.saes} SAEs, {given.chunks:,} chunks, {versions}\n")
    print("| what | empty history | all partitions |\n| --- | ---: | ---: |")
    for figure in figures:
        print(f"| {figure.what} | {_shown(figure.empty, figure.unit)} | {_shown(figure.full, figure.unit)} |")
    if given.json:
        given.json.write_text(json.dumps([one._asdict() for one in figures], indent=1))
    return figures


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:.2f}"
    return f"{digits} {unit}".strip()


if __name__ == "__main__":
    main()
