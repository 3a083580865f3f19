"""What a list shows of each of its features: tokens, an example, a label, flags. All of it is read by key."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from extraction_assets.database.queries.feature_filter import Found, Listing
from extraction_assets.database.tables import (
    feature_example_lists,
    feature_flags,
    feature_labels,
    feature_tokens,
    samples,
)

SHOWN_TOKENS = 3
"""Tokens that say what a feature fires on."""


def hits_select(found: Found, numbers: Sequence[int]) -> sa.Select[Any]:
    """How often a search found some features."""
    query = found.hits.where(found.number.in_(numbers))
    return query.execution_options(about="how often they were found")


def top_tokens_select(extraction_id: int, numbers: Sequence[int]) -> sa.Select[Any]:
    """The tokens on which each of some features fires most often, in their order."""
    stored = feature_tokens.c
    query = sa.select(stored.neuron_index, stored.token).where(
        stored.extraction_id == extraction_id,
        stored.neuron_index.in_(numbers),
        stored.place == "firing",
        stored.rank < SHOWN_TOKENS,
    )
    return query.order_by(stored.neuron_index, stored.rank).execution_options(about="their top tokens")


def examples_select(extraction_id: int, numbers: Sequence[int]) -> sa.Select[Any]:
    """The strongest example of each of some features, and the strongest tokens of the next ones."""
    stored = feature_example_lists.c
    tokens = [stored.examples[rank, 2].as_string().label(f"token_{rank}") for rank in range(1, SHOWN_TOKENS + 1)]
    query = sa.select(stored.neuron_index, stored.examples[0].label("example"), *tokens)
    query = query.where(stored.extraction_id == extraction_id, stored.neuron_index.in_(numbers))
    return query.execution_options(about="their strongest examples")


def samples_select(corpus_id: int, numbers: Sequence[int]) -> sa.Select[Any]:
    """Some samples of a corpus with their tokens and the ids of those."""
    stored = samples.c
    query = sa.select(stored.sample_index, stored.document_id, stored.tokens, stored.token_ids)
    query = query.where(stored.corpus_id == corpus_id, stored.sample_index.in_(numbers))
    return query.execution_options(about="the samples of these examples")


def row_labels_select(listing: Listing, numbers: Sequence[int]) -> sa.Select[Any]:
    """What people have written about some features."""
    stored = feature_labels.c
    query = sa.select(stored.neuron_index, stored.label, stored.mark)
    query = query.where(stored.name == listing.name, stored.sae == listing.sae, stored.neuron_index.in_(numbers))
    return query.execution_options(about="their labels")


def row_flags_select(extraction_id: int, numbers: Sequence[int]) -> sa.Select[Any]:
    """The flags of some features."""
    stored = feature_flags.c
    query = sa.select(stored.neuron_index, stored.flag)
    query = query.where(stored.extraction_id == extraction_id, stored.neuron_index.in_(numbers))
    return query.order_by(stored.neuron_index, stored.flag).execution_options(about="their flags")
