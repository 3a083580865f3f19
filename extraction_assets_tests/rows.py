"""All rows of a results database, to be compared with those of another one."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from extraction_assets.database.connect import open_database
from extraction_assets.database.tables import metadata

_WHEN = ("created_at", "finished_at")


def all_rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table by its primary key, without the times at which they were made, JSON as its text."""
    engine = open_database(url)
    try:
        with engine.connect() as connection:
            return {table.name: _rows(connection, table) for table in metadata.sorted_tables}
    finally:
        engine.dispose()


def _rows(connection: sa.Connection, table: sa.Table) -> list[tuple[Any, ...]]:
    columns = [_as_stored(column) for column in table.c if column.name not in _WHEN]
    return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(*table.primary_key))]


def _as_stored(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    there = column.type.dialect_impl(postgresql.dialect())  # where others are arrays, or JSON in a form of its own
    is_text = isinstance(there, sa.JSON) and not isinstance(there, postgresql.JSONB)
    return sa.cast(column, sa.Text) if is_text else column
