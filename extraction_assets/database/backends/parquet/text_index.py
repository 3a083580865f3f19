"""Text of samples on Parquet: there is no index; DuckDB reads the column of tokens, compressed, on all cores."""

from typing import Any

import sqlalchemy as sa


def index_some(connection: sa.Connection, count: int) -> int:
    return 0


def holds(connection: sa.Connection, corpus_id: int, sample_index: int) -> bool:
    return False


def forget_corpora(connection: sa.Connection) -> None:
    """There is nothing to forget."""


def indexed(samples: sa.Table, corpus_id: sa.ColumnElement[int], text: str) -> sa.ColumnElement[bool] | None:
    return None


def scanned(tokens: sa.ColumnElement[Any], text: str) -> sa.ColumnElement[bool]:
    each = sa.func.from_json(tokens, sa.literal_column("""'["VARCHAR"]'"""))
    return sa.func.array_to_string(each, "", type_=sa.Text()).icontains(text, autoescape=True)
