"""Reading results: on a full or read-only disk too, and without making a database that does not exist."""

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from extraction_assets.database.backends import EMPTY_DATABASE_URL, backend_of_url, parse_url
from extraction_assets.database.connect import connect, open_database, plain_errors
from extraction_assets.database.migrations.revisions import known_revisions, revision_of
from extraction_assets.database.schema import create_schema
from extraction_assets.database.url_text import URL_VARIABLE


@contextlib.contextmanager
def read_database(url: str, stated_in: str = URL_VARIABLE) -> Iterator[sa.Engine]:
    """An engine that only reads, closed at the end of the block; it works on a full or read-only disk too.

    A database's file that is not there counts as an empty database, and is not made. One whose schema is older is
    brought up to date first, which needs room. Raises DatabaseError, at once or later in the block.
    """
    parsed = parse_url(url, stated_in)
    file = backend_of_url(parsed).file(parsed)
    with contextlib.ExitStack() as stack:
        if file is not None and not file.is_file():
            engine = _empty_database()
        else:
            engine = stack.enter_context(_reading(parsed))
            if _revision(engine) != known_revisions()[0]:
                stack.close()
                engine = open_database(url, stated_in)
        stack.callback(engine.dispose)
        stack.enter_context(plain_errors(engine))
        yield engine


def schema_revision(url: sa.URL) -> str | None:
    """Revision of a database's schema, None if it has none. Only reads: a file is opened as it is.

    Raises DatabaseError, or the driver's error.
    """
    with backend_of_url(url).reading(url) as engine:
        return _revision(engine)


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return revision_of(connection)


def _empty_database() -> sa.Engine:
    """The tables without rows, in memory."""
    engine = connect(EMPTY_DATABASE_URL)
    with engine.begin() as connection:
        create_schema(connection)
    return engine


@contextlib.contextmanager
def _reading(url: sa.URL) -> Iterator[sa.Engine]:
    """An engine for a database that is there, whatever its schema."""
    with backend_of_url(url).reading(url) as engine, plain_errors(engine):
        yield engine
