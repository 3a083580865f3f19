"""SQLite: one file, readers in WAL mode beside one writer, lists as JSON."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import sqlite as dialect
from sqlalchemy.types import TypeEngine

from extraction_assets.database.backends.protocol import ColumnKind, TextIndex
from extraction_assets.database.backends.sqlite import text_index
from extraction_assets.database.backends.sqlite.read_only_disk import readable_path
from extraction_assets.database.backends.sqlite.views import VIEWS
from extraction_assets.database.errors import DatabaseError, DatabaseUnavailableError, FullDiskError, NotWritableError
from extraction_assets.database.url_text import error_sentence
from extraction_assets.host.disk import FULL, free_bytes, full_disk, not_writable, says_no_room

if TYPE_CHECKING:
    import pyarrow as pa

BUSY_TIMEOUT_MS = 120_000
"""How long a writer waits for another to finish."""

_CACHE_KB = 256 * 1024  # an upper bound; with the default 2 MB, replacing an index's pages takes thrice as long
_ANALYSIS_LIMIT = 400  # rows of an index that ANALYZE looks at; SQLite's documentation advises 100 to 1000
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_WRITES = "extraction_assets_writes"


class SqliteBackend:
    """See ``protocol.Backend``."""

    name = "sqlite"
    url_names = ("sqlite",)
    title = "SQLite"
    example_url = "sqlite:///path"
    advice = "is it a SQLite file, and readable? Put it back from a back-up, or move it away and merge again"
    # SQLite numbers rows by itself only for INTEGER.
    column_types: Mapping[ColumnKind, TypeEngine[Any]] = {"row_id": sa.Integer()}
    write_options: Mapping[str, Any] = {_WRITES: True}
    views = VIEWS
    is_beside_chunks = True
    migrates = True
    most_values = 900  # of 999 parameters
    text_index: TextIndex = text_index

    @property
    def written_dialect(self) -> sa.Dialect:
        return dialect.dialect(paramstyle="named")

    def list_length(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        return sa.func.json_array_length(column, type_=sa.Integer())

    def list_text(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.cast(column, sa.Text)

    def number_pairs(self, pairs: str) -> tuple[sa.ColumnElement[int], sa.ColumnElement[int]]:
        pair = sa.func.json_each(pairs).table_valued("value", name="found").c.value
        first, second = (sa.func.json_extract(pair, f"$[{at}]", type_=sa.BigInteger()) for at in (0, 1))
        return first, second

    def with_driver(self, url: sa.URL, variable: str) -> sa.URL:
        """Python's own driver needs no name."""
        return url

    def file(self, url: sa.URL) -> Path | None:
        return None if url.database in (None, "", ":memory:") else Path(str(url.database))

    def connect(self, url: sa.URL) -> sa.Engine:
        """Makes the folder of the file."""
        file = self.file(url)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url)
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", _begin)
        event.listen(engine, "close", _put_log_into_file)
        return engine

    @contextlib.contextmanager
    def reading(self, url: sa.URL) -> Iterator[sa.Engine]:
        file = self.file(url)
        engine = self.connect(url) if file is None else _reading_engine(url, str(file))
        with contextlib.ExitStack() as stack:
            if file is not None and _finds_no_room(engine):
                engine.dispose()
                engine = _reading_engine(url, stack.enter_context(readable_path(file)))
            stack.callback(engine.dispose)
            yield engine

    def lock_writers(self, connection: sa.Connection) -> None:
        """Nothing: BEGIN IMMEDIATE has waited."""

    def create_tables(self, connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
        for table in tables:
            table.create(connection, checkfirst=False)

    def insert(self, connection: sa.Connection, table: sa.Table, parts: "Iterable[pa.Table]") -> None:
        from extraction_assets.database.backends.sqlite.bulk import insert_rows

        insert_rows(connection, table, parts)

    def replace_rows(
        self, connection: sa.Connection, table: sa.Table, extraction_id: int, parts: "Iterable[pa.Table]"
    ) -> None:
        from extraction_assets.database.backends.sqlite.bulk import insert_rows

        # Whoever commits would else put the log into the file, and everyone waits for that: see _put_log_into_file.
        connection.exec_driver_sql("PRAGMA wal_autocheckpoint = 0")
        of_extraction = table.c.extraction_id == extraction_id
        others = connection.scalar(sa.select(sa.exists().where(~of_extraction)))
        # SQLite empties a table at once where no condition is given.
        connection.execute(sa.delete(table).where(of_extraction) if others else sa.delete(table))
        insert_rows(connection, table, parts)

    def analyze(self, connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
        connection.exec_driver_sql(f"PRAGMA analysis_limit = {_ANALYSIS_LIMIT}")
        for table in tables:
            connection.exec_driver_sql(f"ANALYZE {table.name}")

    def delete(self, connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> None:
        connection.execute(sa.delete(table).where(condition))

    def upsert(self, table: sa.Table, keys: Sequence[str]) -> sa.Insert:
        insert = dialect.insert(table)
        changed = {column.name: insert.excluded[column.name] for column in table.c if column.name not in keys}
        return insert.on_conflict_do_update(index_elements=list(keys), set_=changed)

    def sweep(self, engine: sa.Engine, *, remove: bool) -> int:
        return 0

    def plain_error(self, engine: sa.Engine, reason: BaseException) -> DatabaseError | None:
        damaged = str(getattr(reason, "sqlite_errorname", "")).startswith(_DAMAGED)
        if not damaged and not isinstance(reason, (sqlite3.OperationalError, sqlite3.InterfaceError)):
            return None
        kind: type[DatabaseError] = DatabaseError
        said, file = str(reason), self.file(engine.url)
        if file is not None and says_no_room(reason) and (free_bytes(file.parent) < FULL or "is full" in said):
            kind, said = FullDiskError, full_disk(file)
        elif file is not None and says_no_room(reason) and (refused := not_writable(file)) is not None:
            kind, said = NotWritableError, refused
        elif "database is locked" in said:
            kind = DatabaseUnavailableError
            said = f"another program has been writing to it for {BUSY_TIMEOUT_MS // 1000} s (database is locked)"
        elif "disk I/O error" in said:
            kind = DatabaseUnavailableError
        return kind(error_sentence("the results database", engine.url, said))


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    # Python's sqlite3 begins transactions by itself, and late; _begin does it instead.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")


def _put_log_into_file(connection: sqlite3.Connection, _record: object) -> None:
    """Before a connection is closed: as far as readers let it, without waiting. The last one of a file would do that by
    itself; where the browser is open, a connection that has loaded rows is not the last one, and its log would grow."""
    with contextlib.suppress(sqlite3.Error):  # a full disk, another's lock: the rows are safe in the log, for the next
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _begin(connection: sa.Connection) -> None:
    """A writer takes the lock at once: a lock that is upgraded later can fail without waiting. What a load of the same
    connection has left in the log is put into the file before, so that the log is used again."""
    writes = connection.get_execution_options().get(_WRITES)
    if writes and isinstance(driver := connection.connection.dbapi_connection, sqlite3.Connection):
        _put_log_into_file(driver, None)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _finds_no_room(engine: sa.Engine) -> bool:
    """Whether the file cannot be opened because its disk takes no new byte."""
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except sa.exc.DBAPIError as error:  # whatever else it is, the first query says
        return says_no_room(error)
    return False


def _reading_engine(url: sa.URL, place: str) -> sa.Engine:
    """An engine whose connections open ``place``, a path or a ``file:`` URI, and keep what they sort in memory."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(place, uri=place.startswith("file:"), check_same_thread=False)
        connection.isolation_level = None  # _begin begins transactions
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if place.startswith("file:"):
            connection.execute("PRAGMA temp_store = MEMORY")
        return connection

    engine = sa.create_engine(url, creator=connect)
    event.listen(engine, "begin", _begin)
    return engine
