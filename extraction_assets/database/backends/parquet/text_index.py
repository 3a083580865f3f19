"""Text of samples on Parquet: there is no index; DuckDB reads the column of tokens, compressed, on all cores."""

import json
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
    """Only what the JSON text lets pass is parsed, which takes ten times as long as to look through that text. It has
    no spaces between tokens, as ``arrow_lists.json_lists`` writes it."""
    written = sa.cast(tokens, sa.Text)
    joined = sa.func.replace(written, '","', "", type_=sa.Text())
    may_hold = joined.icontains(json.dumps(text, ensure_ascii=False)[1:-1], autoescape=True)
    is_unclear = written.contains('\\",', autoescape=True)  # a token with these signs looks like the end of one
    each = sa.func.from_json(tokens, sa.literal_column("""'["VARCHAR"]'"""))
    holds = sa.func.array_to_string(each, "", type_=sa.Text()).icontains(text, autoescape=True)
    return sa.case((may_hold | is_unclear, holds), else_=False)
