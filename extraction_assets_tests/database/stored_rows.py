"""Rows by hand in a database of any kind: one of Parquet takes rows of a large table in bulk alone."""

import json
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.backends.parquet.definitions import KEPT


def store_rows(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows inside the open transaction."""
    if connection.dialect.name != "parquet" or table.name in KEPT:
        connection.execute(sa.insert(table), rows)
        return
    part = next(iter(table.primary_key)).name
    for value in dict.fromkeys(row[part] for row in rows):
        chosen = [row for row in rows if row[part] == value]
        columns = {name: pa.array([_stored(row.get(name)) for row in chosen]) for name in chosen[0]}
        backend_of(connection).insert(connection, table, [pa.table(columns)])


def _stored(value: Any) -> Any:
    """Lists as the package writes them."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if isinstance(value, list | dict) else value
