"""The samples that the examples and draws of an extraction name, and who speaks in them."""

from collections.abc import Mapping, Sequence

import numpy as np
import sqlalchemy as sa

from extraction_assets.database.queries.examples import messages_query
from extraction_assets.database.tables import sample_feature_lists, sample_messages
from extraction_assets.engine.corpora.message_spans import MessageSpan

_QUERIED_AT_ONCE = 500  # of SQLite's 999 parameters


def named_samples(connection: sa.Connection, extraction_id: int) -> np.ndarray:
    """Indices of the samples, ascending: int64 [N]."""
    listed = sample_feature_lists.c
    query = sa.select(listed.sample_index).where(listed.extraction_id == extraction_id).order_by(listed.sample_index)
    return np.fromiter(connection.scalars(query, execution_options={"yield_per": 100_000}), np.int64)


def messages_of(
    connection: sa.Connection, extraction_id: int, corpus_id: int, indices: Sequence[int]
) -> Mapping[int, list[MessageSpan]] | None:
    """Who speaks in some samples, by sample; None if the corpus holds no chats."""
    if (
        connection.scalar(sa.select(sample_messages.c.number).where(sample_messages.c.corpus_id == corpus_id).limit(1))
        is None
    ):
        return None
    said: dict[int, list[MessageSpan]] = {}
    for first in range(0, len(indices), _QUERIED_AT_ONCE):
        for sample_index, *span in connection.execute(
            messages_query(extraction_id, indices[first : first + _QUERIED_AT_ONCE])
        ):
            said.setdefault(sample_index, []).append(MessageSpan(*span))
    return said
