"""The made-up results of ``browsing_results`` in PostgreSQL or Parquet: copied out of the SQLite file."""

import io
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.backends.parquet.definitions import KEPT
from extraction_assets.database.connect import connect, open_database, write_transaction
from extraction_assets.database.tables import metadata
from extraction_assets.database.writing.text_index import index_texts

_AT_ONCE = 20_000


def copy_to_postgresql(path: Path, url: str) -> None:
    """Fill an empty database with the rows of a file that ``make_results`` wrote, and make its index of texts."""
    engine = open_database(url)
    with sqlite3.connect(path) as source, engine.begin() as connection:
        for table in metadata.sorted_tables:
            _copy(source, connection, table)
    index_texts(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")  # as the server does by itself within a minute
    engine.dispose()


def copy_to_parquet(path: Path, url: str) -> None:
    """Fill an empty folder with the rows of a file that ``make_results`` wrote."""
    engine, made = open_database(url), connect(f"sqlite:///{path}")
    with made.connect() as rows, sqlite3.connect(path) as source, write_transaction(engine) as connection:
        for table in metadata.sorted_tables:
            if table.name in KEPT:
                kept = [row._asdict() for row in rows.execute(sa.select(table))]
                connection.execute(sa.insert(table), kept) if kept else None
            else:
                backend_of(connection).insert(connection, table, _parts(source, table))
    made.dispose()
    engine.dispose()


def _parts(source: sqlite3.Connection, table: sa.Table) -> Iterator[pa.Table]:
    """The rows of a table by its key, some at once."""
    names = [column.name for column in table.columns]
    keys = ", ".join(column.name for column in table.primary_key)
    rows = source.execute(f"SELECT {', '.join(names)} FROM {table.name} ORDER BY {keys}")
    for part in iter(lambda: rows.fetchmany(2_000), []):
        columns = dict(zip(names, map(list, zip(*part, strict=True)), strict=True))
        if "tokens" in columns and table.name == "samples":  # without spaces, as a load writes it
            columns["tokens"] = [json.loads(one) for one in columns["tokens"]]
        yield pa.table(columns)


def _copy(source: sqlite3.Connection, connection: sa.Connection, table: sa.Table) -> None:
    names = ", ".join(column.name for column in table.columns)
    arrays = [isinstance(column.type.dialect_impl(connection.dialect), sa.ARRAY) for column in table.columns]
    rows = source.execute(f"SELECT {names} FROM {table.name}")
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        for part in iter(lambda: rows.fetchmany(_AT_ONCE), []):
            text = io.StringIO("".join(_lines(part, arrays)))
            cursor.copy_expert(f"COPY {table.name} ({names}) FROM STDIN", text)


def _lines(rows: list[tuple[Any, ...]], arrays: list[bool]) -> Iterator[str]:
    r"""Rows as COPY reads them: tabs between values, ``\N`` for NULL."""
    for row in rows:
        values = (_array(value) if array else value for value, array in zip(row, arrays, strict=True))
        yield "\t".join(r"\N" if value is None else _escaped(str(value)) for value in values) + "\n"


def _array(value: str) -> str:
    """A JSON list as the literal of an array."""
    quoted = (str(one).replace("\\", "\\\\").replace('"', '\\"') for one in json.loads(value))
    return "{" + ",".join(f'"{one}"' for one in quoted) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
