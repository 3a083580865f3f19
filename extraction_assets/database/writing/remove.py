"""Removing an extraction's rows, and what only it used."""

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.tables import (
    OF_AN_EXTRACTION,
    corpora,
    directions,
    extractions,
    feature_logits,
    sample_feature_lists,
    sample_messages,
    samples,
)
from extraction_assets.database.writing.feature_examples import delete_unreferenced

Rows = dict[str, int]
"""Rows by table."""


def count_results(connection: sa.Connection, name: str, sae: str | None = None) -> Rows:
    """Rows that ``delete_results`` would remove, without empty tables."""
    ids = _ids(name, sae)
    counts = {table.name: _count(connection, table, table.c.extraction_id.in_(ids)) for table in OF_AN_EXTRACTION}
    counts |= {"samples": 0, "sample_messages": 0}
    counts["extractions"] = _count(connection, extractions, extractions.c.id.in_(ids))
    used = connection.scalars(sa.select(extractions.c.corpus_id).where(extractions.c.id.in_(ids)).distinct()).all()
    for corpus_id in used:
        others = sa.select(extractions.c.id).where(extractions.c.corpus_id == corpus_id, extractions.c.id.not_in(ids))
        named = sa.select(sample_feature_lists.c.sample_index).where(sample_feature_lists.c.extraction_id.in_(others))
        for table in (samples, sample_messages):
            mine = (table.c.corpus_id == corpus_id) & table.c.sample_index.not_in(named)
            counts[table.name] += _count(connection, table, mine)
    computed = _directions(name, sae)
    counts["directions"] = _count(connection, directions, directions.c.id.in_(computed))
    counts["feature_logits"] = _count(connection, feature_logits, feature_logits.c.directions_id.in_(computed))
    shared = sa.select(extractions.c.corpus_id).where(extractions.c.id.not_in(ids))
    counts["corpora"] = _count(connection, corpora, corpora.c.id.in_(used) & corpora.c.id.not_in(shared))
    return {table: count for table, count in counts.items() if count}


def delete_results(connection: sa.Connection, name: str, sae: str | None = None) -> None:
    """Remove the rows of an extraction, or of one of its SAEs, with the samples and corpora that nothing else uses.
    What people have written (``feature_labels``) stays.

    Call it inside ``write_transaction``: it takes the lock of the merges, and readers see all rows or none.
    """
    ids = connection.scalars(_ids(name, sae)).all()
    backend = backend_of(connection)
    for table in OF_AN_EXTRACTION:
        backend.delete(connection, table, table.c.extraction_id.in_(ids))
    connection.execute(sa.delete(extractions).where(extractions.c.id.in_(ids)))
    computed = connection.scalars(_directions(name, sae)).all()
    backend.delete(connection, feature_logits, feature_logits.c.directions_id.in_(computed))
    connection.execute(sa.delete(directions).where(directions.c.id.in_(computed)))
    delete_unreferenced(connection)


def _ids(name: str, sae: str | None) -> sa.Select[tuple[int]]:
    chosen = sa.select(extractions.c.id).where(extractions.c.name == name)
    return chosen if sae is None else chosen.where(extractions.c.sae == sae)


def _directions(name: str, sae: str | None) -> sa.Select[tuple[int]]:
    chosen = sa.select(directions.c.id).where(directions.c.name == name)
    return chosen if sae is None else chosen.where(directions.c.sae == sae)


def _count(connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool]) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table).where(condition)) or 0
