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

BUSY_TIMEOUT_MS = 120_000
"""How long a SQLite writer waits for another to finish."""

_LOCK_KEY = 0x5AE_FEA7  # PostgreSQL advisory lock of everything that writes results


class NewerDatabaseError(ValueError):
    """The database was made by a later version of this package."""


def open_database(url: str) -> sa.Engine:
    """An engine for the results database, its schema brought up to date.

    Makes the folder of a SQLite file. Raises NewerDatabaseError where the database is newer than the code.
    """
    engine = connect(url)
    _upgrade(engine)
    return engine


def connect(url: str) -> sa.Engine:
    """An engine for an SQLAlchemy URL, without looking at the schema."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(parsed)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextlib.contextmanager
def write_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """The one transaction of a merge: other writers wait, readers see the old rows until it commits."""
    with engine.connect().execution_options(extraction_assets_writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        yield connection


def _set_up_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # Python's sqlite3 begins transactions by itself, and late; _begin_sqlite does it instead.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
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
    with engine.connect() as connection:
        if _revision(connection) == head:
            return
    with write_transaction(engine) as connection:
        current = _revision(connection)  # another process may have been here while this one waited
        if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
            raise NewerDatabaseError(
                f"the results database {engine.url.render_as_string(hide_password=True)} has schema {current}, which "
                "this version of extraction_assets does not know: upgrade the package or use another database"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def schema_revisions(url: sa.URL) -> tuple[str | None, list[str]]:
    """Revision of a database's schema (None where it has none), and those that this version knows, newest first.

    Only reads: a SQLite file is opened as it is.
    """
    script = ScriptDirectory.from_config(_alembic_config())
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return _revision(connection), [revision.revision for revision in script.walk_revisions()]
    finally:
        engine.dispose()


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
