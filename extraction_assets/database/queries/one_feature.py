"""What one feature has beside its statistics, examples, relations and directions. All of it is read by key."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.queries.relations import relations_are_current
from extraction_assets.database.tables import (
    corpora,
    extractions,
    feature_example_lists,
    feature_tokens,
    features,
)


def first_tokens_query(extraction_id: int, neuron_indices: Iterable[int], count: int) -> sa.Select[Any]:
    """(neuron_index, token) of the ``count`` most frequent tokens of some features, of the current result alone."""
    tokens = feature_tokens.c
    query = (
        sa.select(tokens.neuron_index, tokens.token)
        .where(
            tokens.extraction_id == extraction_id,
            tokens.neuron_index.in_(sorted(set(neuron_indices))),
            tokens.place == "firing",
            tokens.rank < count,
            relations_are_current(extraction_id),
        )
        .order_by(tokens.neuron_index, tokens.rank)
    )
    return query.execution_options(about="what other features fire on")


def extraction_ids_query(name: str) -> sa.Select[Any]:
    """(sae, id, latent_dim) of the SAEs of an extraction."""
    query = sa.select(extractions.c.sae, extractions.c.id, extractions.c.latent_dim).where(extractions.c.name == name)
    return query.execution_options(about="the SAEs of this extraction")


def corpus_query(corpus_id: int) -> sa.Select[Any]:
    """The corpus of an extraction."""
    return sa.select(corpora).where(corpora.c.id == corpus_id).execution_options(about="its corpus")


def special_ids(connection: sa.Connection, corpus_id: int) -> frozenset[int] | None:
    """Ids of the special tokens of a corpus; None for what was merged before they were kept."""
    query = sa.select(corpora.c.special_ids).where(corpora.c.id == corpus_id)
    found = connection.scalar(query.execution_options(about="the special tokens of its corpus"))
    return None if found is None else frozenset(found)


def stored_examples(connection: sa.Connection, extraction_id: int, neuron_index: int) -> int:
    """How many strongest examples of a feature are stored."""
    stored = feature_example_lists.c
    query = sa.select(backend_of(connection).list_length(stored.examples)).where(
        stored.extraction_id == extraction_id, stored.neuron_index == neuron_index
    )
    return connection.scalar(query.execution_options(about="how many examples are stored")) or 0


def first_firing_query(extraction_id: int) -> sa.Select[Any]:
    """The row of ``features`` of the first feature that fires, which says what is known in this result."""
    query = sa.select(features).where(features.c.extraction_id == extraction_id, features.c.activation_count > 0)
    query = query.order_by(features.c.neuron_index).limit(1)
    return query.execution_options(about="the first feature that fires")


def firing_query(extraction_id: int, neuron_indices: Iterable[int]) -> sa.Select[Any]:
    """Which of some features fire."""
    found = features.c
    query = sa.select(found.neuron_index).where(
        found.extraction_id == extraction_id,
        found.neuron_index.in_(sorted(set(neuron_indices))),
        found.activation_count > 0,
    )
    return query.execution_options(about="a feature that fires")
