"""What is stored of one feature beside its statistics and examples: relations, directions, flags, label.

All of it is read by key; the tables say what each column means.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.tables import (
    corpora,
    directions,
    extractions,
    feature_example_lists,
    feature_flags,
    feature_labels,
    feature_logits,
    feature_neighbours,
    feature_tokens,
    features,
    relations,
)


def relations_query(extraction_id: int) -> sa.Select[Any]:
    """What the relations of an extraction were counted over."""
    query = sa.select(relations).where(relations.c.extraction_id == extraction_id)
    return query.execution_options(about="what relations were counted over")


def tokens_query(extraction_id: int, neuron_index: int) -> sa.Select[Any]:
    """Top tokens of a feature, both at its firings and after them."""
    tokens = feature_tokens.c
    query = (
        sa.select(tokens.place, tokens.token_id, tokens.token, tokens.count, tokens.mean_activation, tokens.share)
        .where(tokens.extraction_id == extraction_id, tokens.neuron_index == neuron_index)
        .order_by(tokens.place, tokens.rank)
    )
    return query.execution_options(about="its top tokens")


def neighbours_query(extraction_id: int, neuron_index: int) -> sa.Select[Any]:
    """The features that fire together with one, and its own firings."""
    found = feature_neighbours.c
    query = sa.select(found.neighbours, found.tokens).where(
        found.extraction_id == extraction_id, found.neuron_index == neuron_index
    )
    return query.execution_options(about="the features that fire together with it")


def first_tokens_query(extraction_id: int, neuron_indices: Iterable[int], count: int) -> sa.Select[Any]:
    """(neuron_index, token) of the ``count`` most frequent tokens of some features."""
    tokens = feature_tokens.c
    query = (
        sa.select(tokens.neuron_index, tokens.token)
        .where(
            tokens.extraction_id == extraction_id,
            tokens.neuron_index.in_(sorted(set(neuron_indices))),
            tokens.place == "firing",
            tokens.rank < count,
        )
        .order_by(tokens.neuron_index, tokens.rank)
    )
    return query.execution_options(about="what other features fire on")


def flags_query(extraction_id: int, neuron_index: int) -> sa.Select[Any]:
    """(flag, detail) of a feature."""
    flags = feature_flags.c
    query = (
        sa.select(flags.flag, flags.detail)
        .where(flags.extraction_id == extraction_id, flags.neuron_index == neuron_index)
        .order_by(flags.flag)
    )
    return query.execution_options(about="its flags")


def directions_query(name: str, sae: str) -> sa.Select[Any]:
    """What the weights of an SAE gave."""
    query = sa.select(directions).where(directions.c.name == name, directions.c.sae == sae)
    return query.execution_options(about="what the weights gave")


def logits_query(directions_id: int, neuron_index: int) -> sa.Select[Any]:
    """Logit lens and nearest decoder rows of a feature."""
    found = feature_logits.c
    query = sa.select(feature_logits).where(found.directions_id == directions_id, found.neuron_index == neuron_index)
    return query.execution_options(about="its logits and the nearest decoder rows")


def label_query(name: str, sae: str, neuron_index: int) -> sa.Select[Any]:
    """(label, mark, note) of a feature."""
    labels = feature_labels.c
    query = sa.select(labels.label, labels.mark, labels.note).where(
        labels.name == name, labels.sae == sae, labels.neuron_index == neuron_index
    )
    return query.execution_options(about="its label")


def extraction_ids_query(name: str) -> sa.Select[Any]:
    """(sae, id, latent_dim) of the SAEs of an extraction."""
    query = sa.select(extractions.c.sae, extractions.c.id, extractions.c.latent_dim).where(extractions.c.name == name)
    return query.execution_options(about="the SAEs of this extraction")


def corpus_query(corpus_id: int) -> sa.Select[Any]:
    """The corpus of an extraction."""
    return sa.select(corpora).where(corpora.c.id == corpus_id).execution_options(about="its corpus")


def stored_examples(connection: sa.Connection, extraction_id: int, neuron_index: int) -> int:
    """How many strongest examples of a feature are stored."""
    stored = feature_example_lists.c
    query = sa.select(backend_of(connection).list_length(stored.examples)).where(
        stored.extraction_id == extraction_id, stored.neuron_index == neuron_index
    )
    return connection.scalar(query.execution_options(about="how many examples are stored")) or 0


def firing_query(extraction_id: int, neuron_indices: Iterable[int]) -> sa.Select[Any]:
    """Which of some features fire."""
    found = features.c
    query = sa.select(found.neuron_index).where(
        found.extraction_id == extraction_id,
        found.neuron_index.in_(sorted(set(neuron_indices))),
        found.activation_count > 0,
    )
    return query.execution_options(about="a feature that fires")
