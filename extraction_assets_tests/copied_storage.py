"""Dagster makes each kind of SQLite storage once, with its migrations, and copies of it from then on: a project in
memory takes two of them, a home on disk three, and each run of a home one more."""

import contextlib
import functools
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dagster._core.storage.event_log import in_memory as events_in_memory
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs import in_memory as runs_in_memory
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage

from extraction_assets_tests.processes import STORAGE


class _InMemory:
    """In the place of a module's metadata and its stamp: what the first database holds, the others are filled with."""

    def __init__(self, module: Any, metadata: str) -> None:
        self._metadata, self._stamp = getattr(module, metadata), module.stamp_alembic_rev
        self._whole: sqlite3.Connection | None = None
        setattr(module, metadata, self)
        module.stamp_alembic_rev = self.stamp

    def create_all(self, connection: sa.Connection) -> None:
        if self._whole is None:
            self._metadata.create_all(connection)
        else:
            self._whole.backup(_driver_of(connection))

    def stamp(self, config: Any, connection: sa.Connection) -> None:
        if self._whole is None:
            self._stamp(config, connection)
            driver = _driver_of(connection)
            driver.commit()
            self._whole = sqlite3.connect(":memory:", check_same_thread=False)
            driver.backup(self._whole)


def _driver_of(connection: sa.Connection) -> sqlite3.Connection:
    driver = connection.connection.dbapi_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _made_or_copied(kind: str, path: Path, make: Callable[[], Any]) -> Any:
    """What ``make`` gives, which makes the database at a path unless it is there."""
    if path.exists() or STORAGE not in os.environ:
        return make()
    known = Path(os.environ[STORAGE]) / f"{kind}.db"
    if known.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(known.read_bytes(), path)
        return make()
    made = make()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _put(path.read_bytes(), known)
    return made


def _put(content: bytes, path: Path) -> None:
    """At once, and not in the place of what another process has put there."""
    with tempfile.NamedTemporaryFile(dir=path.parent) as file:
        file.write(content)
        file.flush()
        with contextlib.suppress(FileExistsError):
            os.link(file.name, path)


def _copying_from_local(storage: Any, name: str) -> None:
    original = storage.from_local.__func__

    def from_local(cls: Any, base_dir: str, inst_data: Any = None) -> Any:
        return _made_or_copied(name, Path(base_dir) / f"{name}.db", lambda: original(cls, base_dir, inst_data))

    storage.from_local = classmethod(from_local)


def _copying_events() -> None:
    original, initialize = SqliteEventLogStorage.__init__, SqliteEventLogStorage._initdb

    def begin(storage: SqliteEventLogStorage, base_dir: str, inst_data: Any = None) -> None:
        index = Path(base_dir).absolute() / f"{INDEX_SHARD_NAME}.db"
        _made_or_copied(INDEX_SHARD_NAME, index, lambda: original(storage, base_dir, inst_data))

    def begin_run(storage: SqliteEventLogStorage, engine: sa.Engine, for_index_shard: bool = False) -> None:
        def make() -> None:
            initialize(storage, engine, for_index_shard)

        if for_index_shard:
            make()
        else:
            _made_or_copied("run", Path(engine.url.database or ""), make)

    SqliteEventLogStorage.__init__ = begin  # type: ignore[method-assign, assignment]
    SqliteEventLogStorage._initdb = begin_run  # type: ignore[method-assign, assignment]


@functools.cache
def hurry() -> None:
    """In this process from now on."""
    _InMemory(runs_in_memory, "RunStorageSqlMetadata")
    _InMemory(events_in_memory, "SqlEventLogStorageMetadata")
    _copying_from_local(SqliteRunStorage, "runs")
    _copying_from_local(SqliteScheduleStorage, "schedules")
    _copying_events()
