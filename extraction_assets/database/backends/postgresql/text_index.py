"""Text of samples on PostgreSQL: a table of texts with a GIN index of trigrams, if this role may use ``pg_trgm``."""

from typing import Any

import sqlalchemy as sa

_TEXTS = sa.table("sample_texts", sa.column("corpus_id"), sa.column("sample_index"), sa.column("text", sa.Text))
_MAKE = (
    "CREATE TABLE IF NOT EXISTS sample_texts (corpus_id bigint, sample_index bigint, text text NOT NULL, "
    "PRIMARY KEY (corpus_id, sample_index))",
    "CREATE INDEX IF NOT EXISTS ix_sample_texts ON sample_texts USING gin (text gin_trgm_ops)",
)
_FILL = """
    INSERT INTO sample_texts SELECT corpus_id, sample_index, array_to_string(tokens, '') FROM samples s
    WHERE NOT EXISTS (SELECT FROM sample_texts t WHERE t.corpus_id = s.corpus_id AND t.sample_index = s.sample_index)
    ORDER BY corpus_id, sample_index LIMIT %s
"""
_LEAST = 3
"""Characters that a trigram has."""


def index_some(connection: sa.Connection, count: int) -> int:
    """Add up to so many samples that are not in it; returns how many, 0 without the extension."""
    if not _exists(connection):
        if not _has_trigrams(connection):
            return 0
        for statement in _MAKE:
            connection.exec_driver_sql(statement)
    return connection.exec_driver_sql(_FILL, (count,)).rowcount


def _has_trigrams(connection: sa.Connection) -> bool:
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except (sa.exc.ProgrammingError, sa.exc.NotSupportedError, sa.exc.OperationalError):  # not permitted, not installed
        return False
    return True


def _exists(connection: sa.Connection) -> bool:
    return connection.scalar(sa.select(sa.func.to_regclass(_TEXTS.name))) is not None


def holds(connection: sa.Connection, corpus_id: int, sample_index: int) -> bool:
    if not _exists(connection):
        return False
    there = sa.exists().where(_TEXTS.c.corpus_id == corpus_id, _TEXTS.c.sample_index == sample_index)
    return bool(connection.scalar(sa.select(there)))


def forget_corpora(connection: sa.Connection) -> None:
    if _exists(connection):
        gone = "DELETE FROM sample_texts t WHERE NOT EXISTS (SELECT FROM corpora c WHERE c.id = t.corpus_id)"
        connection.exec_driver_sql(gone)


def indexed(samples: sa.Table, corpus_id: sa.ColumnElement[int], text: str) -> sa.ColumnElement[bool] | None:
    """The condition that a sample's text contains ``text``, whatever the case; None if no trigram is in it."""
    if len(text) < _LEAST:
        return None
    found = sa.select(_TEXTS.c.sample_index).where(
        _TEXTS.c.corpus_id == corpus_id, _TEXTS.c.text.icontains(text, autoescape=True)
    )
    return samples.c.sample_index.in_(found)


def scanned(tokens: sa.ColumnElement[Any], text: str) -> sa.ColumnElement[bool]:
    """The same condition without the index."""
    return sa.func.array_to_string(tokens, "", type_=sa.Text()).icontains(text, autoescape=True)
