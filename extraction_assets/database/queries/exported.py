"""What exports read of some features at once: all of it by key, lists as the JSON text that is stored.

A list of examples is parsed by whoever writes it, and the tokens of a sample mostly by nobody: an export of JSON copies
their text.
"""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.tables import (
    corpora,
    feature_draw_lists,
    feature_example_lists,
    feature_flags,
    feature_labels,
    feature_logits,
    feature_neighbours,
    feature_tokens,
    features,
    samples,
)


def corpus_select(corpus_id: int) -> sa.Select[Any]:
    """All columns of a corpus."""
    return sa.select(corpora).where(corpora.c.id == corpus_id)


def statistics_select(extraction_id: int, numbers: Collection[int]) -> sa.Select[Any]:
    """All columns of ``features``."""
    chosen = features.c
    return sa.select(features).where(chosen.extraction_id == extraction_id, chosen.neuron_index.in_(numbers))


def example_texts_select(extraction_id: int, numbers: Collection[int]) -> sa.Select[Any]:
    """(neuron_index, the JSON text of its examples), ascending."""
    chosen = feature_example_lists.c
    query = sa.select(chosen.neuron_index, sa.cast(chosen.examples, sa.Text)).order_by(chosen.neuron_index)
    return query.where(chosen.extraction_id == extraction_id, chosen.neuron_index.in_(numbers))


def draw_texts_select(extraction_id: int, numbers: Collection[int]) -> sa.Select[Any]:
    """(neuron_index, the JSON text of its draws), ascending."""
    chosen = feature_draw_lists.c
    query = sa.select(chosen.neuron_index, sa.cast(chosen.draws, sa.Text)).order_by(chosen.neuron_index)
    return query.where(chosen.extraction_id == extraction_id, chosen.neuron_index.in_(numbers))


def sample_texts_select(connection: sa.Connection, corpus_id: int, numbers: Collection[int]) -> sa.Select[Any]:
    """(sample_index, document_id, first_token, the JSON texts of its tokens and of their ids)."""
    chosen, text = samples.c, backend_of(connection).list_text
    named = (chosen.sample_index, chosen.document_id, chosen.first_token)
    query = sa.select(*named, text(chosen.tokens), text(chosen.token_ids))
    return query.where(chosen.corpus_id == corpus_id, chosen.sample_index.in_(numbers))


def top_tokens_select(extraction_id: int, numbers: Collection[int]) -> sa.Select[Any]:
    """(neuron_index, place, token_id, token, count, mean_activation, share), in the order of their rank."""
    chosen = feature_tokens.c
    names = ("neuron_index", "place", "token_id", "token", "count", "mean_activation", "share")
    query = sa.select(*(chosen[name] for name in names))
    query = query.where(chosen.extraction_id == extraction_id, chosen.neuron_index.in_(numbers))
    return query.order_by(chosen.neuron_index, chosen.place, chosen.rank)


def neighbours_select(extraction_id: int, numbers: Collection[int]) -> sa.Select[Any]:
    """(neuron_index, tokens, neighbours)."""
    chosen = feature_neighbours.c
    query = sa.select(chosen.neuron_index, chosen.tokens, chosen.neighbours)
    return query.where(chosen.extraction_id == extraction_id, chosen.neuron_index.in_(numbers))


def flags_select(extraction_id: int, numbers: Collection[int]) -> sa.Select[Any]:
    """(neuron_index, flag, detail)."""
    chosen = feature_flags.c
    query = sa.select(chosen.neuron_index, chosen.flag, chosen.detail)
    query = query.where(chosen.extraction_id == extraction_id, chosen.neuron_index.in_(numbers))
    return query.order_by(chosen.neuron_index, chosen.flag)


def logits_select(directions_id: int, numbers: Collection[int]) -> sa.Select[Any]:
    """All columns of ``feature_logits``."""
    chosen = feature_logits.c
    return sa.select(feature_logits).where(chosen.directions_id == directions_id, chosen.neuron_index.in_(numbers))


def labels_state_select(name: str, sae: str) -> sa.Select[Any]:
    """``labels`` of an SAE, and when one was written ``last``: another pair after every change."""
    chosen = feature_labels.c
    numbers: list[sa.ColumnElement[Any]] = [sa.func.count().label("labels"), sa.func.max(chosen.updated_at)]
    return sa.select(*numbers).where(chosen.name == name, chosen.sae == sae)
