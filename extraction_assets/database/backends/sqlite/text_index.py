"""Text of samples on SQLite: an FTS5 index of trigrams without a copy of the text.

Its row ids are ``corpus_id * 2^40 + sample_index``. Rows of samples that have gone stay in it: whoever asks joins
``samples``, and the text of a sample of a corpus never changes.
"""

from typing import Any

import sqlalchemy as sa

_PLACES = 2**40
_INDEX = sa.table("sample_text", sa.column("rowid", sa.BigInteger), sa.column("sample_text", sa.Text))
_MAKE = "CREATE VIRTUAL TABLE IF NOT EXISTS sample_text USING fts5(text, content='', tokenize='trigram')"
_FILL = f"""
    INSERT INTO sample_text (rowid, text)
    SELECT corpus_id * {_PLACES} + sample_index, (SELECT group_concat(value, '') FROM json_each(tokens)) FROM samples
    WHERE NOT EXISTS (SELECT 1 FROM sample_text_docsize WHERE id = corpus_id * {_PLACES} + sample_index)
    ORDER BY corpus_id, sample_index LIMIT ?
"""
_LEAST = 3
"""Characters that a trigram has."""


def index_some(connection: sa.Connection, count: int) -> int:
    """Add up to so many samples that are not in it; returns how many."""
    connection.exec_driver_sql(_MAKE)
    return connection.exec_driver_sql(_FILL, (count,)).rowcount


def holds(connection: sa.Connection, corpus_id: int, sample_index: int) -> bool:
    if not sa.inspect(connection).has_table(_INDEX.name):
        return False
    found = "SELECT EXISTS (SELECT 1 FROM sample_text_docsize WHERE id = ?)"
    return bool(connection.exec_driver_sql(found, (corpus_id * _PLACES + sample_index,)).scalar())


def forget_corpora(connection: sa.Connection) -> None:
    """Drops the index: nothing less can be done without the texts, and SQLite gives the number of the corpus to the
    next one."""
    connection.exec_driver_sql("DROP TABLE IF EXISTS sample_text")


def indexed(samples: sa.Table, corpus_id: sa.ColumnElement[int], text: str) -> sa.ColumnElement[bool] | None:
    """The condition that a sample's text contains ``text``, whatever the case; None if no trigram is in it."""
    if len(text) < _LEAST:
        return None
    place, quoted = corpus_id * _PLACES, '"' + text.replace('"', '""') + '"'  # a phrase: no sign in it is an operator
    found = sa.select(_INDEX.c.rowid - place).where(
        _INDEX.c.sample_text.op("MATCH")(quoted), _INDEX.c.rowid >= place, _INDEX.c.rowid < place + _PLACES
    )
    return samples.c.sample_index.in_(found)


def scanned(tokens: sa.ColumnElement[Any], text: str) -> sa.ColumnElement[bool]:
    """The same condition without the index; of letters beyond ASCII, case counts."""
    each = sa.func.json_each(tokens).table_valued("value")
    joined = sa.select(sa.func.group_concat(each.c.value, "")).scalar_subquery()
    return joined.contains(text, autoescape=True)
