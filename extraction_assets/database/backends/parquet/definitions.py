"""The tables of a results folder as DuckDB's statements: a kept table is in memory, any other a view of its files."""

from collections.abc import Callable, Iterator, Mapping

import sqlalchemy as sa

from extraction_assets.database.backends.parquet.manifest import StoredTable
from extraction_assets.database.backends.parquet.views import VIEWS

KEPT = ("alembic_version", "corpora", "extractions", "relations", "directions", "feature_labels")
"""Tables of a row for an extraction, or for what somebody wrote: plain statements change them."""

_KEYED = ("feature_labels",)
"""Those whose rows are put in the place of others of the same key."""

_TYPES: tuple[tuple[type, str], ...] = (
    (sa.SmallInteger, "SMALLINT"),
    (sa.BigInteger, "BIGINT"),
    (sa.Integer, "INTEGER"),
    (sa.Double, "DOUBLE"),
    (sa.DateTime, "TIMESTAMP"),  # in UTC
    (sa.String, "VARCHAR"),
    (sa.JSON, "JSON"),
)

Address = Callable[[str], str]
"""From the name of a file to where DuckDB opens it."""


def new_table(table: sa.Table) -> StoredTable:
    """A table without rows."""
    columns = {column.name: _type(column) for column in table.c}
    return StoredTable(columns, tuple(column.name for column in table.primary_key), table.name in KEPT)


def definition(name: str, table: StoredTable, address: Address) -> Iterator[str]:
    """Statements that make a table, in the place of the one that is there."""
    if not table.is_kept:
        yield f"CREATE OR REPLACE VIEW {name} AS {rows_query(table, address)}"
        return
    columns = [f"{_quoted(column)} {kind}" for column, kind in table.columns.items()]
    keys = [f"PRIMARY KEY ({', '.join(table.key)})"] if name in _KEYED else []
    yield f"CREATE OR REPLACE TABLE {name} ({', '.join([*columns, *keys])})"
    yield f"INSERT INTO {name} {rows_query(table, address)}"


def rows_query(table: StoredTable, address: Address) -> str:
    """The rows of a table's files, without a reader's memory of them."""
    names = ", ".join(map(_quoted, table.columns))
    if not table.files:
        nothing = (f"NULL::{kind} AS {_quoted(column)}" for column, kind in table.columns.items())
        return f"SELECT {', '.join(nothing)} WHERE false"
    files = ", ".join("'" + address(file.name).replace("'", "''") + "'" for file in table.files)
    # A folder of the path such as sae=7 is no column, which DuckDB would put in the place of the file's own.
    return f"SELECT {names} FROM read_parquet([{files}], hive_partitioning = false)"


def list_views() -> Iterator[str]:
    """Statements that make the views of a row for each element."""
    for name, query in VIEWS.items():
        yield f"CREATE OR REPLACE VIEW {name} AS {query}"


def shell_script(tables: Mapping[str, StoredTable], address: Address) -> str:
    """Statements for a person's DuckDB, which then has the tables and views."""
    views = (f"CREATE OR REPLACE VIEW {name} AS {rows_query(table, address)}" for name, table in tables.items())
    return "".join(f"{statement};\n" for statement in (*views, *list_views()))


def _type(column: sa.Column[object]) -> str:
    kind = column.type.dialect_impl(sa.engine.default.DefaultDialect())
    return next(name for known, name in _TYPES if isinstance(kind, known))


def _quoted(name: str) -> str:
    return f'"{name}"'
