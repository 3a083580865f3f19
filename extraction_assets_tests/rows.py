"""All rows of a results database, to be compared with those of another one."""

from typing import Any

import sqlalchemy as sa

from extraction_assets.database.connect import open_database
from extraction_assets.database.tables import metadata

_WHEN = ("created_at", "finished_at")


def all_rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table by its primary key, without the times at which they were made."""
    engine = open_database(url)
    try:
        with engine.connect() as connection:
            return {table.name: _rows(connection, table) for table in metadata.sorted_tables}
    finally:
        engine.dispose()


def _rows(connection: sa.Connection, table: sa.Table) -> list[tuple[Any, ...]]:
    columns = [column for column in table.c if column.name not in _WHEN]
    return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(*table.primary_key))]
