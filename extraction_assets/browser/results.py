"""The results database of a server that runs for weeks: a file may appear, be replaced, and a server restart."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import sqlalchemy as sa

from extraction_assets.database.backends import EMPTY_DATABASE_URL, backend_of_url
from extraction_assets.database.connect import plain_errors
from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.labels import label_transaction

OpenDatabase = Callable[[], AbstractContextManager[sa.Engine]]
"""``ResultsResource.read`` and ``ResultsResource.open``, or the like."""


class Results:
    """Connections to the results. The engine stays open while the database is the same and answers."""

    def __init__(self, read: OpenDatabase, write: OpenDatabase | None = None) -> None:
        self._read, self._write = read, write
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._engine: sa.Engine | None = None
        self._identity: tuple[int, int] | None = None

    @contextlib.contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """A connection for one page, in a transaction of its own. Raises DatabaseError if the database is away."""
        try:
            with self._engine_of_page() as engine, plain_errors(engine), engine.connect() as connection:
                yield connection
        except DatabaseError:
            self.close()
            raise

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes labels, committed at the end of the block. Raises DatabaseError."""
        assert self._write is not None, "a browser that is read-only has no actions"
        with self._write() as engine, label_transaction(engine) as connection:
            yield connection

    def close(self) -> None:
        """Close the connections that nobody uses; the next page opens the database again."""
        with self._lock:
            self._forget()

    @contextlib.contextmanager
    def _engine_of_page(self) -> Iterator[sa.Engine]:
        """The engine that all pages share; of the page alone, and its thread, for a database that is not there yet."""
        engine = self._answering()
        if engine is not None:
            yield engine
            return
        with self._read() as empty:
            yield empty

    def _answering(self) -> sa.Engine | None:
        """An engine with a connection that answers: one from before the server restarted does not."""
        engine = self._current()
        if engine is None:
            return None
        try:
            with plain_errors(engine), engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1")
        except DatabaseError:
            self.close()
            return self._current()
        return engine

    def _current(self) -> sa.Engine | None:
        """The engine of the database that is there now; None if no database is there."""
        with self._lock:
            if self._engine is None or self._identity != _identity(self._engine):
                self._forget()
                engine = self._stack.enter_context(self._read())
                self._identity = _identity(engine)
                if self._identity is None:
                    self._forget()
                else:
                    self._engine = engine
            return self._engine

    def _forget(self) -> None:
        self._engine = None
        self._stack.close()


def _identity(engine: sa.Engine) -> tuple[int, int] | None:
    """What is another if a file was replaced; None for the empty database that stands for a file that is not there."""
    file = backend_of_url(engine.url).file(engine.url)
    if file is None:
        return None if engine.url == sa.make_url(EMPTY_DATABASE_URL) else (0, 0)
    return _file_identity(file)


def _file_identity(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino
