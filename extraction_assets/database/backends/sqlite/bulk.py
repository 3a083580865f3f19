"""Bulk insert into SQLite: ``executemany`` of many rows a statement on the driver's own connection, lists as JSON."""

import json
from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from extraction_assets.database.backends.arrow_lists import flat_lists, json_lists, json_numbers
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
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        number = pa.types.is_integer(column.type.value_type) or pa.types.is_floating(column.type.value_type)
        column = json_numbers(column) if number else _json_texts(column)
    values: list[Any] = column.to_pylist()
    return values


def _json_texts(column: pa.Array) -> pa.Array:
    """Lists of texts as JSON; every different text is made into JSON once."""
    offsets, values = flat_lists(column)
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    encoded = pa.array([json.dumps(text, ensure_ascii=False) for text in coded.dictionary.to_pylist()], pa.string())
    return json_lists(pa.LargeListArray.from_arrays(offsets, encoded.take(coded.indices)))
