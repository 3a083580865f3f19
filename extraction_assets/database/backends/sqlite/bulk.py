"""Bulk insert into SQLite: ``executemany`` of many rows a statement on the driver's own connection, lists as JSON."""

from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from extraction_assets.database.backends.arrow_lists import json_column
from extraction_assets.database.backends.prefetch import in_order

_BATCH_ROWS = 20_000
_STATEMENT_ROWS = 50  # a row a statement takes 1.5 times as long; of 9 columns they are 450 of SQLite's 999 parameters


def insert_rows(connection: sa.Connection, table: sa.Table, parts: Iterable[pa.Table]) -> None:
    """Insert rows inside the open transaction: no per-row work of SQLAlchemy, lists made into JSON by Arrow."""
    driver = connection.connection.driver_connection
    assert driver is not None, "the transaction is open"
    batches = (batch for rows in parts for batch in rows.to_batches(max_chunksize=_BATCH_ROWS))
    for names, values in in_order(partial(_flat, batch) for batch in batches):
        whole = len(values) - len(values) % (_STATEMENT_ROWS * len(names))
        _execute(driver, table, names, values[:whole], _STATEMENT_ROWS)
        _execute(driver, table, names, values[whole:], 1)


def _execute(driver: Any, table: sa.Table, names: list[str], values: list[Any], rows: int) -> None:
    row = f"({', '.join('?' * len(names))})"
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([row] * rows)}"
    step = rows * len(names)
    driver.executemany(statement, (values[at : at + step] for at in range(0, len(values), step)))


def _flat(batch: pa.RecordBatch) -> tuple[list[str], list[Any]]:
    """Column names, and the values of some rows one after the other."""
    columns = [_values(column) for column in batch.columns]
    return batch.schema.names, list(chain.from_iterable(zip(*columns, strict=True)))


def _values(column: pa.Array) -> list[Any]:
    listed = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    values: list[Any] = (json_column(column) if listed else column).to_pylist()
    return values
