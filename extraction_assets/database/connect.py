"""Opening the results database: engine, schema, and transactions that readers never see half of."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

from extraction_assets.database.examples_postgres import drop_emptied
from extraction_assets.database.urls import (
    URL_VARIABLE,
    DatabaseError,
    DatabaseUnavailableError,
    error_sentence,
    make_engine,
    parse_url,
    shown_url,
    sqlite_file,
)
from extraction_assets.host.disk import FULL, free_bytes, full_disk, says_no_room

BUSY_TIMEOUT_MS = 120_000
"""How long a SQLite writer waits for another to finish."""

_LOCK_KEY = 0x5AE_FEA7  # PostgreSQL advisory lock of everything that writes results
_SQLITE_CACHE_KB = 256 * 1024  # an upper bound; with the default 2 MB, replacing an index's pages takes thrice as long
_NOT_PERMITTED = "42501"  # PostgreSQL's insufficient_privilege
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
# What libpq says where a server, or the network before it, went away; which of them is a matter of moments.
_LOST = (
    "terminating connection",
    "connection unexpectedly",
    "invalid socket",
    "connection already closed",
    "no connection",
)
_AWAY = ("refused", "timeout", "timed out", "starting up", "shutting down", "too many clients", "disk I/O error")


class FullDiskError(DatabaseError):
    """A SQLite database that cannot be written because its disk is full."""


class NewerDatabaseError(DatabaseError):
    """The database was made by a later version of this package."""


def open_database(url: str, stated_in: str = URL_VARIABLE) -> sa.Engine:
    """An engine for the results database, its schema brought up to date.

    ``url`` is ``sqlite:///path`` or ``postgresql://user:password@host/name``. Makes the folder of a SQLite file. Raises
    DatabaseError, or NewerDatabaseError where the database is newer than the code.
    """
    engine = connect(url, stated_in)
    try:
        _upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def connect(url: str, stated_in: str = URL_VARIABLE) -> sa.Engine:
    """An engine for a URL, without looking at the schema; ``stated_in`` is where it stands, for messages.

    Raises DatabaseError where the URL is invalid or its driver missing.
    """
    parsed = parse_url(url, stated_in)
    if parsed.get_backend_name() == "postgresql":
        # Readers look several times, and must see the same results each time.
        engine = make_engine(parsed, isolation_level="REPEATABLE READ")
        event.listen(engine, "connect", _set_up_postgres)
        return engine
    if parsed.database not in (None, "", ":memory:"):
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = make_engine(parsed)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", begin_sqlite)
    return engine


@contextlib.contextmanager
def write_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """The one transaction of a merge: other writers wait, readers see the old rows until it commits.

    On PostgreSQL the tables that earlier writers emptied are dropped first.
    """
    options: dict[str, Any] = {"extraction_assets_writes": True}
    if engine.dialect.name == "postgresql":
        with plain_errors(engine):
            drop_emptied(engine, _LOCK_KEY)
        # A snapshot taken before the wait for the lock would not see what the writer before has committed.
        options["isolation_level"] = "READ COMMITTED"
    with plain_errors(engine), engine.connect().execution_options(**options) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        yield connection


@contextlib.contextmanager
def plain_errors(engine: sa.Engine) -> Iterator[None]:
    """Turns what the driver says of a lost connection, a lock or a refusal into a DatabaseError."""
    reported: tuple[type[Exception], ...] = (sa.exc.DBAPIError, *_unavailable(engine))
    try:
        yield
    except reported as error:
        reason = _root(error, engine)
        damaged = str(getattr(reason, "sqlite_errorname", "")).startswith(_DAMAGED)
        refused = getattr(reason, "pgcode", None) == _NOT_PERMITTED
        if not (damaged or refused or isinstance(reason, _unavailable(engine))):
            raise
        # Without its cause: tracebacks of statements that name every row help nobody whose server is down.
        raise _plain_error(engine, reason) from None


def _plain_error(engine: sa.Engine, reason: BaseException) -> DatabaseError:
    kind: type[DatabaseError] = DatabaseUnavailableError
    said, file = str(reason), sqlite_file(engine.url)
    if file is not None and says_no_room(reason) and (free_bytes(file.parent) < FULL or "is full" in said):
        return FullDiskError(error_sentence("the results database", engine.url, full_disk(file)))
    if "database is locked" in said:
        said = f"another program has been writing to it for {BUSY_TIMEOUT_MS // 1000} s (database is locked)"
    elif any(phrase in said for phrase in _LOST):
        said = f"the connection was lost ({said.strip().splitlines()[0]})"
    elif not any(phrase in said for phrase in _AWAY):
        kind = DatabaseError
    return kind(error_sentence("the results database", engine.url, said))


def _unavailable(engine: sa.Engine) -> tuple[type[Exception], ...]:
    """The driver's errors that lie in the server, the network or the file, and not in a statement."""
    driver = engine.dialect.dbapi
    assert driver is not None, "an engine has a driver"
    return driver.OperationalError, driver.InterfaceError


def _root(error: BaseException, engine: sa.Engine) -> BaseException:
    """The driver's first error: rolling back on a dead connection raises another one on top of it."""
    driver = engine.dialect.dbapi
    assert driver is not None
    root = error
    while error is not None:
        if isinstance(error, driver.Error):
            root = error
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__  # type: ignore[assignment]
    return root


def _set_up_postgres(dbapi_connection: Any, _record: Any) -> None:
    """Times are given in UTC, as on SQLite, wherever the server is."""
    dbapi_connection.autocommit = True
    with dbapi_connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    dbapi_connection.autocommit = False


def _set_up_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # Python's sqlite3 begins transactions by itself, and late; begin_sqlite does it instead.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA cache_size = -{_SQLITE_CACHE_KB}")
    cursor.close()


def begin_sqlite(connection: sa.Connection) -> None:
    """A writer takes the lock at once: a lock that is upgraded later can fail without waiting."""
    writes = connection.get_execution_options().get("extraction_assets_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _upgrade(engine: sa.Engine) -> None:
    """Run the migrations that the database lacks, under the writers' lock."""
    config = _alembic_config()
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    with plain_errors(engine), engine.connect() as connection:
        if _revision(connection) == head:
            return
    with write_transaction(engine) as connection:
        current = _revision(connection)  # another process may have been here while this one waited
        if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
            raise NewerDatabaseError(
                f"the results database {shown_url(engine.url)} has schema {current}, which "
                "this version of extraction_assets does not know: upgrade the package or use another database"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current_revision(engine: sa.Engine) -> str | None:
    """Revision of a database's schema; None where it has none."""
    with engine.connect() as connection:
        return _revision(connection)


def known_revisions() -> list[str]:
    """The schemas that this version knows, newest first."""
    script = ScriptDirectory.from_config(_alembic_config())
    return [revision.revision for revision in script.walk_revisions()]


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
