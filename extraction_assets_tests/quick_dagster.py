"""Dagster's SQLite storage without what it builds again for every query: connections, compiled statements, and the map
of Alembic's revisions; without waiting for the disk; and Dagster without telemetry. Half of the CPU time of a tiny
extraction's runs went there. The forks of ``processes`` have it too; processes that tests start afresh have Dagster as
it is. Its PostgreSQL storage keeps connections, too: the server forks a process for each, of 20 milliseconds, and
Dagster makes one a query."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core import telemetry
from dagster._core.execution import compute_logs
from dagster._core.instance.runs.run_domain import RunDomain
from dagster._core.storage import local_compute_log_manager
from dagster._core.storage.event_log import in_memory as events_in_memory
from dagster._core.storage.event_log.in_memory import InMemoryEventLogStorage
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs import in_memory as runs_in_memory
from dagster._core.storage.runs.in_memory import InMemoryRunStorage
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

from extraction_assets_tests import copied_storage, quick_sqlalchemy

_read_folder = ScriptDirectory.from_config


@functools.cache
def _folder_of_dagster(location: str) -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", location)
    return _read_folder(config)


def _revisions(config: Config) -> ScriptDirectory:
    """Dagster's own revisions, which no test changes, are read once; those of this package each time."""
    location = config.get_main_option("script_location") or ""
    return _folder_of_dagster(location) if location.startswith("dagster:") else _read_folder(config)


@functools.lru_cache(maxsize=64)
def _engine(url: str, timeout: float | None) -> sa.Engine:
    """An engine that keeps one connection for the next use: opening a file and its log takes longer than most queries.
    The connection goes once the storage is disposed of, or where another file lies in the place."""
    arguments = {} if timeout is None else {"timeout": timeout}
    engine = sa.create_engine(url, poolclass=sa.pool.QueuePool, pool_size=1, max_overflow=-1, connect_args=arguments)
    path, close = engine.url.database or "", engine.dispose

    @sa.event.listens_for(engine, "connect")
    def _note_file(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")  # a killed process has written what it has handed to the system
        record.info["file"] = _file_at(path)
        _closers[path] = close

    @sa.event.listens_for(engine, "checkout")
    def _compare_file(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info["file"] != _file_at(path):
            raise sa.exc.DisconnectionError

    engine.dispose = lambda close=True: None  # type: ignore[method-assign]  # Dagster does after each query
    return engine


_closers: dict[str, Callable[[], None]] = {}
"""By file with a kept connection, what closes it. Not by every file: a worker of the tests makes thousands of them, and
disposes of storage as often."""


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


_dispose_of_watcher = SqliteEventLogStorage.dispose


def _dispose(storage: Any) -> None:
    """After Dagster's: nothing holds a connection, so that files may be copied. What needs one opens it again."""
    _dispose_of_watcher(storage)
    while _closers:
        _closers.popitem()[1]()


def _create_engine(url: str, *, poolclass: type[sa.pool.Pool], connect_args: dict[str, Any] | None = None) -> sa.Engine:
    assert poolclass is sa.pool.NullPool
    return _engine(url, (connect_args or {}).get("timeout"))


def _create_engine_in_memory(url: str, *, poolclass: type[sa.pool.Pool]) -> sa.Engine:
    """An engine that keeps a connection for the next use, beside the one that holds the database."""
    assert poolclass is sa.pool.NullPool
    threads = {"check_same_thread": False}
    engine = sa.create_engine(url, poolclass=sa.pool.QueuePool, pool_size=1, max_overflow=-1, connect_args=threads)
    sa.event.listen(engine, "connect", lambda connection, _record: connection.execute("PRAGMA foreign_keys = ON"))
    return engine


def _keep_connections_to_postgres() -> None:
    try:
        from dagster_postgres import utils
        from dagster_postgres.event_log import event_log
        from dagster_postgres.run_storage import run_storage
        from dagster_postgres.schedule_storage import schedule_storage
    except ModuleNotFoundError:  # the extra is not installed, and no test needs it
        return
    make = utils.create_pg_engine

    def keeping(url: str, *others: Any, poolclass: type[sa.pool.Pool], **options: Any) -> sa.Engine:
        assert poolclass is sa.pool.NullPool
        kept = {"pool_size": 1, "max_overflow": -1, "pool_pre_ping": True}  # a server that was restarted is found again
        return make(url, *others, poolclass=sa.pool.QueuePool, **kept, **options)

    for storage in (event_log, run_storage, schedule_storage):
        storage.create_pg_engine = keeping


@contextlib.contextmanager
def _connect_events(storage: Any) -> Iterator[sa.Connection]:
    with storage._db_lock, storage._engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def _connect_runs(storage: Any) -> Iterator[sa.Connection]:
    with storage._engine.begin() as connection:
        yield connection


def _once_true(ask: Callable[..., bool]) -> Callable[..., bool]:
    """Whether a storage has a table or a column, until it has: Dagster asks for every event, and none goes away."""

    @functools.wraps(ask)
    def remembered(storage: Any, *what: Any) -> bool:
        there, key = storage.__dict__.setdefault("_there", set()), (ask.__name__, what[-1])
        if key not in there and ask(storage, *what):
            there.add(key)
        return key in there

    return remembered


_mirror = compute_logs.mirror_stream_to_file


@contextlib.contextmanager
def _mirror_if_a_file(stream: Any, path: str) -> Iterator[Any]:
    """Dagster starts two processes a stream, also for one in memory, from which it captures nothing."""
    if compute_logs._fileno(stream) is None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
        yield None
    else:
        with _mirror(stream, path) as pids:
            yield pids


@functools.cache
def leave_out_snapshots() -> None:
    """Runs of this process are recorded without the description of their job that the UI shows of old runs: it is made
    of each run's job anew, and serialized to be known by its hash. The forks of ``processes`` record it."""
    undescribed = dg.GraphDefinition(name="undescribed").to_job().get_job_index()
    describe, create = dg.JobDefinition.get_job_index, RunDomain.create_run_for_job

    def create_undescribed(*arguments: Any, **options: Any) -> dg.DagsterRun:
        dg.JobDefinition.get_job_index = lambda _job: undescribed  # type: ignore[method-assign]
        try:
            return create(*arguments, **options)
        finally:
            dg.JobDefinition.get_job_index = describe  # type: ignore[method-assign]

    RunDomain.create_run_for_job = create_undescribed  # type: ignore[method-assign]


@functools.cache
def hurry() -> None:
    """Dagster's SQLite storage in this process works the same in half the time."""
    ScriptDirectory.from_config = _revisions  # type: ignore[method-assign]
    for storage in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
        storage.create_engine = _create_engine  # type: ignore[attr-defined]
    for storage in (events_in_memory, runs_in_memory):
        storage.create_engine = _create_engine_in_memory  # type: ignore[attr-defined]
    InMemoryEventLogStorage._connect = _connect_events  # type: ignore[method-assign]
    InMemoryRunStorage.connect = _connect_runs  # type: ignore[method-assign]
    SqliteEventLogStorage.dispose = _dispose  # type: ignore[method-assign]
    for kind in (InMemoryEventLogStorage, SqliteEventLogStorage):
        kind.has_table = _once_true(kind.has_table)  # type: ignore[method-assign]
        asked = _once_true(kind._has_asset_key_col_on_connection)
        kind._has_asset_key_col_on_connection = asked  # type: ignore[method-assign]
    local_compute_log_manager.mirror_stream_to_file = _mirror_if_a_file  # type: ignore[assignment]
    _keep_connections_to_postgres()
    quick_sqlalchemy.hurry()
    copied_storage.hurry()
    telemetry._get_instance_telemetry_enabled = lambda _instance: False
