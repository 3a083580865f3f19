"""Where results are read from: a database and a chunk store, open until they are closed."""

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from extraction_assets.database.backends import parse_url
from extraction_assets.database.connect import plain_errors
from extraction_assets.database.read_only import read_database
from extraction_assets.database.url_text import shown_url
from extraction_assets.python_api.errors import ClosedError
from extraction_assets.stores.chunk_store import ChunkStore

STATED_IN = "the results database"


class Source:
    """An open results database, with the store that its chunk files are looked for in."""

    def __init__(self, url: str, store: ChunkStore) -> None:
        self._stack = contextlib.ExitStack()
        self._stack.callback(store.close)
        self._engine: sa.Engine | None = self._stack.enter_context(read_database(url, STATED_IN))
        self.store = store
        self.url = shown_url(parse_url(url, STATED_IN))
        """The database, without its password."""

    @property
    def is_closed(self) -> bool:
        return self._engine is None

    def close(self) -> None:
        """Closes the connections; does nothing the second time."""
        self._engine = None
        self._stack.close()

    def refuse_closed(self) -> None:
        """Raises ClosedError once this is closed."""
        if self._engine is None:
            raise ClosedError(f"these results of {self.url} were closed: open them again")

    @contextlib.contextmanager
    def connection(self) -> Iterator[sa.Connection]:
        """A connection that reads. Raises ClosedError, or DatabaseError within the block."""
        self.refuse_closed()
        assert self._engine is not None, "what is not closed has an engine"
        with plain_errors(self._engine), self._engine.connect() as connection:
            yield connection
