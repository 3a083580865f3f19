"""Opening the results database: engine, schema, and transactions that readers never see half of."""

import contextlib
import logging
from collections.abc import Iterator

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of, backend_of_url, parse_url
from extraction_assets.database.errors import DatabaseError, NotWritableError
from extraction_assets.database.migrations.revisions import known_revisions, mark_current, revision_of
from extraction_assets.database.schema import create_schema, is_new
from extraction_assets.database.url_text import URL_VARIABLE, shown_url

_log = logging.getLogger(__name__)


class NewerDatabaseError(DatabaseError):
    """The database was made by a later version of this package."""


def open_database(url: str, stated_in: str = URL_VARIABLE) -> sa.Engine:
    """An engine for the results database, its schema brought up to date.

    ``url`` is ``sqlite:///path`` or ``postgresql://user:password@host/name``. Makes the folder of a SQLite file. Raises
    DatabaseError, or NewerDatabaseError if the database is newer than the code.
    """
    engine = connect(url, stated_in)
    try:
        _upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextlib.contextmanager
def opened_database(url: str, stated_in: str = URL_VARIABLE) -> Iterator[sa.Engine]:
    """``open_database`` for a block, at whose end its connections are closed. Raises DatabaseError, later too."""
    engine = open_database(url, stated_in)
    try:
        with plain_errors(engine):
            yield engine
    finally:
        engine.dispose()


def connect(url: str, stated_in: str = URL_VARIABLE) -> sa.Engine:
    """An engine for a URL, without looking at the schema; ``stated_in`` is where it stands, for messages.

    Raises DatabaseError if the URL is invalid or its driver missing.
    """
    parsed = parse_url(url, stated_in)
    return backend_of_url(parsed).connect(parsed)


@contextlib.contextmanager
def write_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """The one transaction of a merge: other writers wait, readers see the old rows until it commits."""
    backend = backend_of(engine)
    with (
        plain_errors(engine),
        engine.connect().execution_options(**backend.write_options) as connection,
        connection.begin(),
    ):
        backend.lock_writers(connection)
        yield connection


@contextlib.contextmanager
def plain_errors(engine: sa.Engine) -> Iterator[None]:
    """Turns the driver's errors for a lost connection, a lock or a refusal into a DatabaseError."""
    driver = engine.dialect.dbapi
    assert driver is not None, "an engine has a driver"
    try:
        yield
    except (sa.exc.DBAPIError, driver.OperationalError, driver.InterfaceError) as error:
        plain = backend_of(engine).plain_error(engine, _root(error, driver.Error))
        if plain is None:
            raise
        # Without its cause: tracebacks of statements that name every row do not help if the server is down.
        raise plain from None


def _root(error: BaseException, of_driver: type[Exception]) -> BaseException:
    """The driver's first error: rolling back on a dead connection raises another one on top of it."""
    root = error
    while error is not None:
        if isinstance(error, of_driver):
            root = error
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__  # type: ignore[assignment]
    return root


def _upgrade(engine: sa.Engine) -> None:
    """Make the schema of a new database, or run the migrations that are missing, under the writers' lock."""
    head = known_revisions()[0]
    with plain_errors(engine), engine.connect() as connection:
        if revision_of(connection) == head:
            return
    try:
        with write_transaction(engine) as connection:
            _migrate(connection)
    except NotWritableError as error:
        raise NotWritableError(
            f"{error}, and the database must be migrated to schema {head} before it is used: make it writable"
        ) from error


def _migrate(connection: sa.Connection) -> None:
    current, known = revision_of(connection), known_revisions()  # another process may have been here meanwhile
    if current is not None and current not in known:
        raise NewerDatabaseError(
            f"the results database {shown_url(connection.engine.url)} has schema {current}, which "
            "this version of extraction_assets does not know: upgrade the package or use another database"
        )
    if current not in (None, known[0]):
        database = shown_url(connection.engine.url)
        _log.warning("the results database %s is migrated once, from schema %s to %s", database, current, known[0])
    if current == known[0]:
        return
    with _plain_refusal(connection.engine, known[0]):
        if current is None and is_new(connection):
            create_schema(connection)
            mark_current(connection)
            return
        if not backend_of(connection).migrates:
            raise DatabaseError(
                f"{shown_url(connection.engine.url)} has schema {current}, and this version of extraction_assets "
                f"needs {known[0]}: merge again into a new folder"
            )
        from extraction_assets.database.migrations.upgrade import upgrade  # Alembic: not for a current schema

        upgrade(connection)


@contextlib.contextmanager
def _plain_refusal(engine: sa.Engine, head: str) -> Iterator[None]:
    """Turns a statement of a migration that the database refuses, which ``plain_errors`` does not know, into one
    sentence: what people have added to the database may stand in the way."""
    try:
        yield
    except (sa.exc.ProgrammingError, sa.exc.NotSupportedError, sa.exc.IntegrityError, sa.exc.InternalError) as error:
        if backend_of(engine).plain_error(engine, error.orig or error) is not None:
            raise
        reason = " ".join(str(error.orig).split())
        raise DatabaseError(
            f"the results database {shown_url(engine.url)} cannot be migrated to schema {head}, and nothing was "
            f"changed: {reason}"
        ) from error
