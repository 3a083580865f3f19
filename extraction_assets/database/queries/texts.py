"""Samples by what stands in them."""

from typing import Any

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.tables import extractions, relations, sample_feature_lists, samples


def samples_with_text(connection: sa.Connection, extraction_id: int, text: str, limit: int = 100) -> list[int]:
    """Samples that the extraction names and that contain ``text``, whatever the case; ascending ``sample_index``."""
    return [int(index) for index in connection.scalars(text_query(connection, extraction_id, text, limit))]


def text_query(connection: sa.Connection, extraction_id: int, text: str, limit: int = 100) -> sa.Select[Any]:
    """``sample_index`` of the samples that ``samples_with_text`` finds: by the index of texts if there is one that has
    all of the extraction's samples and the text has three characters, else by reading all of them."""
    text_index = backend_of(connection).text_index
    corpus_id = sa.select(extractions.c.corpus_id).where(extractions.c.id == extraction_id).scalar_subquery()
    indexed = text_index.indexed(samples, corpus_id, text) if text_is_indexed(connection, extraction_id) else None
    named = sa.exists().where(
        sample_feature_lists.c.extraction_id == extraction_id,
        sample_feature_lists.c.sample_index == samples.c.sample_index,
    )
    return (
        sa.select(samples.c.sample_index)
        .where(
            samples.c.corpus_id == corpus_id,
            text_index.scanned(samples.c.tokens, text) if indexed is None else indexed,
            named,
        )
        .order_by(samples.c.sample_index)
        .limit(limit)
    )


def text_is_indexed(connection: sa.Connection, extraction_id: int) -> bool:
    """Whether the index of texts has all samples of the extraction.

    It is brought up to date before the relations of a result are stored (``text_index.index_texts``). If it was dropped
    since, with a corpus, and is being made again, it has them all once it has the last one.
    """
    named = sample_feature_lists.c
    last = sa.select(sa.func.max(named.sample_index)).where(named.extraction_id == extractions.c.id).scalar_subquery()
    current = sa.exists().where(
        relations.c.extraction_id == extractions.c.id, relations.c.merge_fingerprint == extractions.c.fingerprint
    )
    query = sa.select(extractions.c.corpus_id, last).where(extractions.c.id == extraction_id, current)
    row = connection.execute(query).one_or_none()
    if row is None or row[1] is None:
        return False
    return backend_of(connection).text_index.holds(connection, *row)
