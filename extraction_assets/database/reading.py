"""Reading results: on a full or read-only disk too, and without making a database where there is none."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from extraction_assets.database.connect import (
    BUSY_TIMEOUT_MS,
    begin_sqlite,
    current_revision,
    known_revisions,
    open_database,
    plain_errors,
)
from extraction_assets.database.full_disk import readable_path
from extraction_assets.database.urls import URL_VARIABLE, make_engine, parse_url, sqlite_file
from extraction_assets.host.disk import says_no_room


@contextlib.contextmanager
def read_database(url: str, stated_in: str = URL_VARIABLE) -> Iterator[sa.Engine]:
    """An engine that only reads, closed at the end of the block; it works on a full or read-only disk too.

    A SQLite file that is not there counts as an empty database, and is not made. One whose schema is older is brought
    up to date first, which needs room. Raises DatabaseError, at once or later in the block.
    """
    parsed = parse_url(url, stated_in)
    file = sqlite_file(parsed)
    with contextlib.ExitStack() as stack:
        if file is None:
            engine = open_database(url)
        elif not file.is_file():
            engine = open_database("sqlite://")
        else:
            engine = stack.enter_context(_reading(parsed, file))
            if current_revision(engine) != known_revisions()[0]:
                stack.close()
                engine = open_database(url)
        stack.callback(engine.dispose)
        stack.enter_context(plain_errors(engine))
        yield engine


def schema_revision(url: sa.URL) -> str | None:
    """Revision of a database's schema, None where it has none. Only reads: a SQLite file is opened as it is.

    Raises DatabaseError, or the driver's error for a server.
    """
    file = sqlite_file(url)
    if file is not None:
        with _reading(url, file) as engine:
            return current_revision(engine)
    engine = make_engine(url)
    try:
        return current_revision(engine)
    finally:
        engine.dispose()


@contextlib.contextmanager
def _reading(url: sa.URL, file: Path) -> Iterator[sa.Engine]:
    """An engine for a SQLite file that is there, whatever its schema."""
    engine = _engine(url, str(file))
    with contextlib.ExitStack() as stack:
        try:
            current_revision(engine)
        except sa.exc.OperationalError as error:
            engine.dispose()
            if says_no_room(error):
                engine = _engine(url, stack.enter_context(readable_path(file)))
        stack.callback(engine.dispose)
        stack.enter_context(plain_errors(engine))
        yield engine


def _engine(url: sa.URL, place: str) -> sa.Engine:
    """An engine whose connections open ``place``, a path or a ``file:`` URI, and keep what they sort in memory."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(place, uri=place.startswith("file:"), check_same_thread=False)
        connection.isolation_level = None  # begin_sqlite begins transactions
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if place.startswith("file:"):
            connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    options: dict[str, Any] = {"creator": connect}
    engine = make_engine(url, **options)
    event.listen(engine, "begin", begin_sqlite)
    return engine
