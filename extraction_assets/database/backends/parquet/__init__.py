"""Parquet files in a folder or in object storage, read through DuckDB: for results that outgrow a database's disk."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, registry
from sqlalchemy.types import TypeEngine

from extraction_assets.database.backends.parquet import text_index
from extraction_assets.database.backends.parquet.definitions import KEPT
from extraction_assets.database.backends.parquet.dialect import NAME, ParquetDialect
from extraction_assets.database.backends.parquet.views import VIEWS
from extraction_assets.database.backends.protocol import ColumnKind, TextIndex
from extraction_assets.database.errors import DatabaseError, DatabaseUnavailableError, FullDiskError
from extraction_assets.database.url_text import error_sentence
from extraction_assets.host.disk import full_disk, says_no_room

if TYPE_CHECKING:
    import pyarrow as pa

    from extraction_assets.database.backends.parquet.sessions import Session

_WRITES = "extraction_assets_writes"
_SCHEMELESS = "file"


class ParquetBackend:
    """See ``protocol.Backend``."""

    name = NAME
    url_names = (NAME,)
    title = "Parquet"
    example_url = "parquet:////folder"
    advice = "is the folder there and readable, or the storage's URL right? See EXTRACTION_DATABASE_URL"
    column_types: Mapping[ColumnKind, TypeEngine[Any]] = {}
    write_options: Mapping[str, Any] = {_WRITES: True}
    views = VIEWS
    is_beside_chunks = False
    migrates = False
    most_values = 100_000
    text_index: TextIndex = text_index

    @property
    def written_dialect(self) -> sa.Dialect:
        return ParquetDialect(paramstyle="named")

    def list_length(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        return sa.func.json_array_length(column, type_=sa.Integer())

    def list_text(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.cast(column, sa.Text)

    def number_pairs(self, pairs: str) -> tuple[sa.ColumnElement[int], sa.ColumnElement[int]]:
        as_lists = sa.func.from_json(sa.literal(pairs, sa.Text()), sa.literal_column("""'[["BIGINT"]]'"""))
        found = sa.select(sa.func.unnest(as_lists).label("pair")).subquery("found")
        first, second = (sa.func.list_extract(found.c.pair, at, type_=sa.BigInteger()) for at in (1, 2))
        return first, second

    def with_driver(self, url: sa.URL, variable: str) -> sa.URL:
        if url.username or url.password or url.port or url.query:
            raise DatabaseError(f"{variable} names a user, a port or options: give a folder alone, {self.example_url}")
        if _storage_scheme(url) is None and (url.host or not str(url.database or "").startswith("/")):
            raise DatabaseError(
                f"{variable} names no full path: write {self.example_url} with four slashes, or for object storage "
                "parquet+s3://bucket/folder"
            )
        if _storage_scheme(url) is not None and not (url.host and url.database):
            raise DatabaseError(f"{variable} names no folder in a bucket: write {url.drivername}://bucket/folder")
        return url

    def file(self, url: sa.URL) -> Path | None:
        from extraction_assets.database.backends.parquet.folder import MARK

        return Path(str(url.database)) / MARK if _storage_scheme(url) is None else None

    def connect(self, url: sa.URL) -> sa.Engine:
        from extraction_assets.database.backends.parquet.folder import LocalFolder, StorageFolder

        try:
            from extraction_assets.database.backends.parquet.sessions import ResultsDatabase
        except ModuleNotFoundError as error:
            raise DatabaseError(
                f"Parquet results need the Python package {error.name}: pip install 'extraction-assets[parquet]'"
            ) from None
        scheme = _storage_scheme(url)
        folder = (
            LocalFolder(Path(str(url.database)))
            if scheme is None
            else StorageFolder(f"{scheme}://{url.host}/{url.database}")
        )
        registry.register(url.drivername.replace("+", "."), ParquetDialect.__module__, ParquetDialect.__name__)
        database = ResultsDatabase(folder)
        engine = sa.create_engine(url, creator=database.session)
        event.listen(engine, "begin", _begin)
        return engine

    @contextlib.contextmanager
    def reading(self, url: sa.URL) -> Iterator[sa.Engine]:
        engine = self.connect(url)
        try:
            yield engine
        finally:
            engine.dispose()

    def lock_writers(self, connection: sa.Connection) -> None:
        """Nothing: the transaction's beginning has waited."""

    def create_tables(self, connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
        _session(connection).create(tables)

    def insert(self, connection: sa.Connection, table: sa.Table, parts: "Iterable[pa.Table]") -> None:
        with self._room(connection):
            _session(connection).append(table.name, parts)

    def replace_rows(
        self, connection: sa.Connection, table: sa.Table, extraction_id: int, parts: "Iterable[pa.Table]"
    ) -> None:
        with self._room(connection):
            _session(connection).replace_part(table.name, extraction_id, parts)

    def delete(self, connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> None:
        if table.name in KEPT:
            connection.execute(sa.delete(table).where(condition))
            return
        written = condition.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        with self._room(connection):
            _session(connection).delete(table.name, str(written))

    def upsert(self, table: sa.Table, keys: Sequence[str]) -> sa.Insert:
        insert = postgresql.insert(table)
        changed = {column.name: insert.excluded[column.name] for column in table.c if column.name not in keys}
        return insert.on_conflict_do_update(index_elements=list(keys), set_=changed)

    def analyze(self, connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
        """Nothing: files have their own statistics."""

    def sweep(self, engine: sa.Engine, *, remove: bool) -> int:
        options = self.write_options if remove else {}
        with engine.connect().execution_options(**options) as connection, connection.begin():
            return _session(connection).sweep(remove=remove)

    def plain_error(self, engine: sa.Engine, reason: BaseException) -> DatabaseError | None:
        driver = engine.dialect.dbapi
        assert driver is not None, "an engine has a driver"
        if not isinstance(reason, driver.OperationalError):
            return None
        said = str(reason).strip().splitlines()[0]
        return DatabaseUnavailableError(error_sentence("the results database", engine.url, said))

    @contextlib.contextmanager
    def _room(self, connection: sa.Connection) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            file = self.file(connection.engine.url)
            if file is None or not says_no_room(error):
                raise
            said = error_sentence("the results database", connection.engine.url, full_disk(file))
            raise FullDiskError(said) from error


def _storage_scheme(url: sa.URL) -> str | None:
    """Of object storage; None for a folder of this machine."""
    scheme = url.drivername.partition("+")[2]
    return scheme if scheme not in ("", _SCHEMELESS) else None


def _session(connection: sa.Connection) -> "Session":
    session = connection.connection.driver_connection
    assert session is not None, "the transaction is open"
    return session


def _begin(connection: sa.Connection) -> None:
    _session(connection).begin(writes=bool(connection.get_execution_options().get(_WRITES)))
