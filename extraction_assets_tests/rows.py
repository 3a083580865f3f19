"""All rows of a results database, to be compared with those of another one."""

from itertools import zip_longest
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from extraction_assets.database.connect import open_database
from extraction_assets.database.tables import directions, feature_logits, metadata

_WHEN = ("created_at", "finished_at")


def all_rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of every table by its primary key, without the times at which they were made, JSON as its text.

    Directions have a number by their extraction and SAE for an id: what computes them again, after a lost run too,
    stores them under a new id.
    """
    engine = open_database(url)
    try:
        with engine.connect() as connection:
            found = {table.name: _rows(connection, table) for table in metadata.sorted_tables}
    finally:
        engine.dispose()
    named = sorted(found[directions.name], key=lambda row: row[1:3])
    numbers = {row[0]: number for number, row in enumerate(named)}
    for name in (directions.name, feature_logits.name):
        renumbered = [(numbers[row[0]], *row[1:]) for row in found[name]]
        found[name] = sorted(renumbered, key=lambda row: row[:2])
    return found


def differences(expected: dict[str, list[tuple[Any, ...]]], found: dict[str, list[tuple[Any, ...]]]) -> str:
    """What differs between the rows of two databases, a line for a table with its first rows that the other lacks;
    empty if nothing does. A whole comparison by pytest would be longer than what a log keeps."""
    lines = []
    for table in sorted(expected.keys() | found.keys()):
        before, after = expected.get(table, []), found.get(table, [])
        if before != after:
            pairs = [pair for pair in zip_longest(before, after) if pair[0] != pair[1]]
            lines.append(f"{table}: {len(before)} and {len(after)} rows, {len(pairs)} differ, first {pairs[0]}")
    return "\n".join(lines)


def _rows(connection: sa.Connection, table: sa.Table) -> list[tuple[Any, ...]]:
    columns = [_as_stored(column) for column in table.c if column.name not in _WHEN]
    return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(*table.primary_key))]


def _as_stored(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    there = column.type.dialect_impl(postgresql.dialect())  # where others are arrays, or JSON in a form of its own
    is_text = isinstance(there, sa.JSON) and not isinstance(there, postgresql.JSONB)
    return sa.cast(column, sa.Text) if is_text else column
