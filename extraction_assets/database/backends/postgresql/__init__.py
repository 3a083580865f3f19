"""PostgreSQL: a server, psycopg2, lists as arrays, binary COPY, an advisory lock for everything that writes results."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from extraction_assets.database.backends.postgresql import text_index
from extraction_assets.database.backends.postgresql.views import VIEWS
from extraction_assets.database.backends.protocol import ColumnKind, TextIndex
from extraction_assets.database.errors import DatabaseError, DatabaseUnavailableError
from extraction_assets.database.url_text import error_sentence

if TYPE_CHECKING:
    import pyarrow as pa

DRIVER = "postgresql+psycopg2"
"""The one driver, which dagster-postgres needs too. SQLAlchemy 2.1 takes another one for plain ``postgresql://``."""

CONNECT_SECONDS = 10
"""How long to wait for a server that does not answer."""

LOCK_KEY = 0x5AE_FEA7
"""The advisory lock of everything that writes results."""

# To compress these lists would take longer than the rest of a load.
_AS_THEY_ARE = (
    "ALTER TABLE feature_example_lists ALTER examples SET STORAGE EXTERNAL",
    "ALTER TABLE feature_draw_lists ALTER draws SET STORAGE EXTERNAL",
)

_NOT_PERMITTED = "42501"  # insufficient_privilege
# What libpq says if a server, or the network before it, is unavailable for a while.
_LOST = (
    "terminating connection",
    "connection unexpectedly",
    "invalid socket",
    "connection already closed",
    "no connection",
)
_UNAVAILABLE = ("refused", "timeout", "timed out", "starting up", "shutting down", "too many clients")


class PostgresqlBackend:
    """See ``protocol.Backend``."""

    name = "postgresql"
    url_names = ("postgresql", "postgres")
    title = "PostgreSQL"
    example_url = "postgresql://user:password@host:port/name"
    advice = "is the server up, the driver installed and the password right? See EXTRACTION_DATABASE_URL"
    # float32 values are stored as doubles, in which every float32 is exact.
    column_types: Mapping[ColumnKind, TypeEngine[Any]] = {
        "integers": postgresql.ARRAY(sa.Integer),
        "doubles": postgresql.ARRAY(sa.Double),
        "texts": postgresql.ARRAY(sa.Text),
        "json": postgresql.JSONB(none_as_null=True),
    }
    views = VIEWS
    is_beside_chunks = False
    migrates = True
    most_values = 30_000  # of 32,767 parameters
    text_index: TextIndex = text_index
    # A snapshot taken before the wait for the lock would not see what the writer before has committed.
    write_options: Mapping[str, Any] = {"isolation_level": "READ COMMITTED"}

    @property
    def written_dialect(self) -> sa.Dialect:
        dialect = postgresql.dialect(paramstyle="named")
        dialect._backslash_escapes = False  # standard_conforming_strings, PostgreSQL's default
        return dialect

    def list_length(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
        return sa.func.json_array_length(column, type_=sa.Integer())

    def list_text(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.cast(sa.func.array_to_json(column), sa.Text)

    def number_pairs(self, pairs: str) -> tuple[sa.ColumnElement[int], sa.ColumnElement[int]]:
        elements = sa.func.jsonb_array_elements(sa.cast(sa.literal(pairs, sa.Text()), JSONB))
        pair = sa.type_coerce(elements.table_valued("value", name="found").c.value, JSONB)
        first, second = (sa.cast(pair[at].as_string(), sa.BigInteger) for at in (0, 1))
        return first, second

    def with_driver(self, url: sa.URL, variable: str) -> sa.URL:
        if url.drivername not in (*self.url_names, DRIVER):
            raise DatabaseError(
                f"{variable} begins with {url.drivername}: but the driver is psycopg2: write postgresql://"
            )
        return url.set(drivername=DRIVER)

    def file(self, url: sa.URL) -> Path | None:
        return None

    def connect(self, url: sa.URL) -> sa.Engine:
        # The URL's own parameters win.
        arguments = {"connect_timeout": CONNECT_SECONDS, "application_name": "extraction_assets", **url.query}
        try:
            # Readers look several times, and must see the same results each time.
            engine = sa.create_engine(url, connect_args=arguments, isolation_level="REPEATABLE READ")
        except ModuleNotFoundError as error:
            raise missing_package(error) from None
        event.listen(engine, "connect", _set_up)
        return engine

    @contextlib.contextmanager
    def reading(self, url: sa.URL) -> Iterator[sa.Engine]:
        engine = self.connect(url)
        try:
            yield engine
        finally:
            engine.dispose()

    def lock_writers(self, connection: sa.Connection) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK_KEY)))

    def create_tables(self, connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
        for table in tables:
            table.create(connection, checkfirst=False)
        for statement in _AS_THEY_ARE:
            connection.exec_driver_sql(statement)

    def insert(self, connection: sa.Connection, table: sa.Table, parts: "Iterable[pa.Table]") -> None:
        from extraction_assets.database.backends.postgresql.bulk import copy_rows

        copy_rows(connection, table, parts)

    def replace_rows(
        self, connection: sa.Connection, table: sa.Table, extraction_id: int, parts: "Iterable[pa.Table]"
    ) -> None:
        from extraction_assets.database.backends.postgresql.bulk import copy_rows

        # To drop an index, or to truncate, would hold up readers.
        connection.execute(sa.delete(table).where(table.c.extraction_id == extraction_id))
        copy_rows(connection, table, parts)

    def analyze(self, connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
        connection.exec_driver_sql(f"ANALYZE {', '.join(table.name for table in tables)}")

    def delete(self, connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> None:
        connection.execute(sa.delete(table).where(condition))

    def upsert(self, table: sa.Table, keys: Sequence[str]) -> sa.Insert:
        insert = postgresql.insert(table)
        changed = {column.name: insert.excluded[column.name] for column in table.c if column.name not in keys}
        return insert.on_conflict_do_update(index_elements=list(keys), set_=changed)

    def sweep(self, engine: sa.Engine, *, remove: bool) -> int:
        return 0

    def plain_error(self, engine: sa.Engine, reason: BaseException) -> DatabaseError | None:
        driver = engine.dialect.dbapi
        assert driver is not None, "an engine has a driver"
        refused = getattr(reason, "pgcode", None) == _NOT_PERMITTED
        if not refused and not isinstance(reason, (driver.OperationalError, driver.InterfaceError)):
            return None
        kind: type[DatabaseError] = DatabaseUnavailableError
        said = str(reason)
        if any(phrase in said for phrase in _LOST):
            said = f"the connection was lost ({said.strip().splitlines()[0]})"
        elif not any(phrase in said for phrase in _UNAVAILABLE):
            kind = DatabaseError
        return kind(error_sentence("the results database", engine.url, said))


def missing_package(error: ModuleNotFoundError) -> DatabaseError:
    """What to say where a package of the extra ``postgres`` is not installed."""
    return DatabaseError(f"PostgreSQL needs the Python package {error.name}: pip install 'extraction-assets[postgres]'")


def _set_up(connection: Any, _record: object) -> None:
    """Times are given in UTC, as on SQLite, wherever the server is."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.autocommit = False
