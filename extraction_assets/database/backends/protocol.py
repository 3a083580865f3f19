"""What differs between databases: the one list of what a backend does.

Everything else of ``database/`` is SQLAlchemy that works on all of them. A backend holds no state; one object serves
all databases of its kind. Arrow, which only who writes needs, is imported where it is used.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from extraction_assets.database.errors import DatabaseError

if TYPE_CHECKING:
    import pyarrow as pa

ColumnKind = Literal["row_id", "integers", "doubles", "texts", "json"]
"""Columns that have another type in some database: a number that the database gives a new row, and lists."""


class TextIndex(Protocol):
    """How the text of samples is found: an index that the database makes, and a condition for each way to ask.

    The text of a sample is its display strings, one after the other.
    """

    def index_some(self, connection: sa.Connection, count: int) -> int:
        """Add up to ``count`` samples that are not in the index, in their order, inside the open transaction; returns
        how many, always 0 where the database cannot have an index. It is made if it is not there."""

    def holds(self, connection: sa.Connection, corpus_id: int, sample_index: int) -> bool:
        """Whether there is an index and this sample is in it; so then are the samples of its corpus before it that were
        there when it was added."""

    def forget_corpora(self, connection: sa.Connection) -> None:
        """Remove the texts of corpora that are no longer there, perhaps with all others, inside the open
        transaction."""

    def indexed(self, samples: sa.Table, corpus_id: sa.ColumnElement[int], text: str) -> sa.ColumnElement[bool] | None:
        """The condition on a sample of a corpus that it contains ``text``, whatever the case, by the index; None if the
        text is too short for it. No sign in the text has a meaning."""

    def scanned(self, tokens: sa.ColumnElement[Any], text: str) -> sa.ColumnElement[bool]:
        """The same condition without the index."""


class Backend(Protocol):
    """One kind of database."""

    @property
    def name(self) -> str:
        """SQLAlchemy's name of the dialect, ``dialect.name``."""

    @property
    def url_names(self) -> tuple[str, ...]:
        """How a URL of it begins, without a driver; ``name`` is among them."""

    @property
    def title(self) -> str:
        """Its name as people write it, ``SQLite``."""

    @property
    def example_url(self) -> str:
        """A URL of it, for messages."""

    @property
    def advice(self) -> str:
        """What to look at where a database of it does not answer, for ``doctor``."""

    @property
    def column_types(self) -> Mapping[ColumnKind, TypeEngine[Any]]:
        """The kinds of columns that differ from ``PORTABLE_TYPES`` in it."""

    @property
    def views(self) -> Mapping[str, str]:
        """The query of each view of ``database/views.py``, by name."""

    @property
    def is_beside_chunks(self) -> bool:
        """Whether chunk files lie in the folder of ``file`` if nothing else is said."""

    @property
    def migrates(self) -> bool:
        """Whether Alembic can change the tables of a database that an earlier version of this package has made."""

    @property
    def most_values(self) -> int:
        """How many values a list in a statement may have."""

    @property
    def written_dialect(self) -> sa.Dialect:
        """The dialect that writes statements for a person, which the database's own shell runs as they are: no driver's
        placeholders, so that % stays one sign."""

    @property
    def text_index(self) -> TextIndex:
        """The index over the text of samples."""

    def list_length(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        """The number of elements of a list in a column of JSON as text, inside a query."""

    def list_text(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """A column of whole numbers or of texts as the text of a JSON list, inside a query."""

    def number_pairs(self, pairs: str) -> tuple[sa.ColumnElement[int], sa.ColumnElement[int]]:
        """The two columns of a JSON list of pairs of whole numbers, inside a query: a row a pair."""

    def with_driver(self, url: sa.URL, variable: str) -> sa.URL:
        """The URL with the one driver that is used; ``variable`` is where it stands, for messages.

        Raises DatabaseError if it names another driver.
        """

    def file(self, url: sa.URL) -> Path | None:
        """The file that the database is or will be; None for a server's database and for one in memory."""

    def connect(self, url: sa.URL) -> sa.Engine:
        """An engine whose connections are set up: time zone, time-outs, isolation (a transaction that reads several
        times sees one state). Looks at no schema. Raises DatabaseError if the driver is not installed."""

    def reading(self, url: sa.URL) -> AbstractContextManager[sa.Engine]:
        """An engine for a database that exists, which writes nothing, not even on a disk that is full or read-only."""

    @property
    def write_options(self) -> Mapping[str, Any]:
        """Execution options of a connection that writes."""

    def lock_writers(self, connection: sa.Connection) -> None:
        """Wait for other writers, at the start of a transaction that writes, until it ends; readers go on."""

    def create_tables(self, connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
        """Make tables in a new database, inside the open transaction, each after those that it refers to."""

    def insert(self, connection: sa.Connection, table: sa.Table, parts: "Iterable[pa.Table]") -> None:
        """Insert rows in bulk inside the open transaction; a part is made while the one before is inserted."""

    def replace_rows(
        self, connection: sa.Connection, table: sa.Table, extraction_id: int, parts: "Iterable[pa.Table]"
    ) -> None:
        """Put rows in the place of an extraction's old ones, inside the open transaction under the writers' lock; a
        part is made while the one before is inserted.

        Whoever reads sees the old rows until the transaction commits, and for as long as their own transaction lasts.
        """

    def delete(self, connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> None:
        """Delete rows of one of the tables that are loaded in bulk, inside the open transaction."""

    def upsert(self, table: sa.Table, keys: Sequence[str]) -> sa.Insert:
        """An INSERT that puts its values in the place of a row with the same ``keys``, the table's primary key."""

    def analyze(self, connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
        """Renew the statistics by which the database chooses indexes, at the end of a transaction that has written to
        these tables; in a time that does not grow with them."""

    def sweep(self, engine: sa.Engine, *, remove: bool) -> int:
        """Bytes of files that no result has any more and nobody reads; ``remove``: remove them. 0 for a database that
        uses the space of removed rows again by itself."""

    def plain_error(self, engine: sa.Engine, reason: BaseException) -> DatabaseError | None:
        """One sentence for an error of the driver that lies in the server, the network, the file, its disk or a
        permission; DatabaseUnavailableError if it may be over before long, FullDiskError if the disk is full.

        None for an error of a statement, which is a fault of this package.
        """
