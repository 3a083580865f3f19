"""Bulk insert into SQLite: ``executemany`` on the driver's own connection, lists as JSON."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

_BATCH_ROWS = 20_000


def insert_sqlite(connection: sa.Connection, table: sa.Table, rows: pa.Table) -> None:
    """Insert rows inside the open transaction: no per-row work of SQLAlchemy, lists made into JSON by Arrow."""
    names = rows.column_names
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})"
    driver = connection.connection.driver_connection
    assert driver is not None, "the transaction is open"
    for batch in rows.to_batches(max_chunksize=_BATCH_ROWS):
        driver.executemany(statement, zip(*(_values(column) for column in batch.columns), strict=True))


def _values(column: pa.Array) -> list[Any]:
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        values: list[Any] = column.to_pylist()
        return values
    if pa.types.is_string(column.type.value_type):
        return [json.dumps(texts, ensure_ascii=False) for texts in column.to_pylist()]
    texts: list[Any] = json_numbers(column).to_pylist()
    return texts


def json_numbers(column: pa.Array) -> pa.Array:
    """Lists of numbers as JSON texts. Numbers as text are JSON already; a double's shortest text reads back as the
    same double."""
    texts = pc.binary_join(column.cast(pa.large_list(pa.string())), ",")
    return pc.binary_join_element_wise("[", texts, "]", "")
