"""Texts of the stored samples, with an index that finds any part of them: made outside a merge's transaction.

SQLite: one FTS5 table with trigrams, whose ``rowid`` is the corpus and the sample. PostgreSQL: a table with a trigram
index if the extension ``pg_trgm`` can be created there, and without one if not. Both are made when they are first
needed, and belong to no schema version: whatever they hold follows from ``samples``.
"""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from extraction_assets.database.tables import samples

SHORTEST = 3
"""Characters that a text to look for has at least: fewer are no trigram."""

ROWS_PER_CORPUS = 1 << 40
"""SQLite's ``rowid`` is the corpus's id times this, and the sample."""

_NAME = "sample_texts"
_BATCH = 1_000

texts = sa.table(_NAME, sa.column("corpus_id"), sa.column("sample_index"), sa.column("text", sa.Text))
"""As PostgreSQL has it."""
fts = sa.table(_NAME, sa.column("rowid", sa.BigInteger), sa.column("text", sa.Text))
"""As SQLite has it."""


def has_texts(connection: sa.Connection) -> bool:
    """Whether any texts were indexed."""
    return sa.inspect(connection).has_table(_NAME)


def index_texts(connection: sa.Connection, corpus_id: int) -> int:
    """Bring the texts of a corpus up to date with ``samples``, inside the caller's write transaction; returns how many
    were written. Texts of corpora that are gone are deleted."""
    make = _make_on_sqlite if connection.dialect.name == "sqlite" else _make_on_postgresql
    make(connection)
    _delete_old(connection)
    written = 0
    for rows in _batches(_changed(connection, corpus_id)):
        connection.execute(_replace(connection), rows)
        written += len(rows)
    return written


def matches_select(dialect_name: str, corpus_id: int, text: str, limit: int) -> sa.Select[Any]:
    """``sample_index`` of the first samples of a corpus that hold a text, whatever its case."""
    if dialect_name == "sqlite":
        first = corpus_id * ROWS_PER_CORPUS
        phrase = '"' + text.replace('"', '""') + '"'
        query = sa.select((fts.c.rowid - first).label("sample_index"))
        query = query.where(fts.c.text.op("MATCH")(phrase), fts.c.rowid.between(first, first + ROWS_PER_CORPUS - 1))
        return query.order_by(fts.c.rowid).limit(limit)
    holds = texts.c.text.icontains(text, autoescape=True)
    query = sa.select(texts.c.sample_index).where(texts.c.corpus_id == corpus_id, holds)
    return query.order_by(texts.c.sample_index).limit(limit)


def _make_on_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql(f"CREATE VIRTUAL TABLE IF NOT EXISTS {_NAME} USING fts5(text, tokenize = 'trigram')")


def _make_on_postgresql(connection: sa.Connection) -> None:
    connection.exec_driver_sql(
        f"CREATE TABLE IF NOT EXISTS {_NAME} (corpus_id BIGINT, sample_index BIGINT, text TEXT NOT NULL, "
        "PRIMARY KEY (corpus_id, sample_index))"
    )
    try:
        with connection.begin_nested():
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            connection.exec_driver_sql(
                f"CREATE INDEX IF NOT EXISTS ix_{_NAME}_text ON {_NAME} USING gin (text gin_trgm_ops)"
            )
    except (sa.exc.ProgrammingError, sa.exc.OperationalError, sa.exc.NotSupportedError):
        return  # not installed, or not permitted: the search reads the texts one by one


def _delete_old(connection: sa.Connection) -> None:
    """Texts of samples that are gone."""
    if connection.dialect.name == "sqlite":
        named = f"SELECT corpus_id * {ROWS_PER_CORPUS} + sample_index FROM samples"
        connection.exec_driver_sql(f"DELETE FROM {_NAME} WHERE rowid NOT IN ({named})")
    else:
        same = "s.corpus_id = t.corpus_id AND s.sample_index = t.sample_index"
        connection.exec_driver_sql(f"DELETE FROM {_NAME} t WHERE NOT EXISTS (SELECT 1 FROM samples s WHERE {same})")


def _changed(connection: sa.Connection, corpus_id: int) -> Iterator[dict[str, Any]]:
    """Samples whose text is not there, or another one: the id of a corpus that is gone is given again."""
    if connection.dialect.name == "sqlite":
        at = fts.c.rowid == corpus_id * ROWS_PER_CORPUS + samples.c.sample_index
        stored, joined = fts.c.text, samples.outerjoin(fts, at)
    else:
        same = (texts.c.corpus_id == samples.c.corpus_id) & (texts.c.sample_index == samples.c.sample_index)
        stored, joined = texts.c.text, samples.outerjoin(texts, same)
    query = sa.select(samples.c.sample_index, samples.c.tokens, stored).select_from(joined)
    found = connection.execute(query.where(samples.c.corpus_id == corpus_id).order_by(samples.c.sample_index)).all()
    for sample_index, tokens, text in found:
        if (current := "".join(tokens)) != text:
            yield {"corpus": corpus_id, "sample": sample_index, "text": current}


def _replace(connection: sa.Connection) -> sa.TextClause:
    if connection.dialect.name == "sqlite":
        return sa.text(
            f"INSERT OR REPLACE INTO {_NAME} (rowid, text) VALUES (:corpus * {ROWS_PER_CORPUS} + :sample, :text)"
        )
    return sa.text(
        f"INSERT INTO {_NAME} VALUES (:corpus, :sample, :text) "
        "ON CONFLICT (corpus_id, sample_index) DO UPDATE SET text = excluded.text"
    )


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
