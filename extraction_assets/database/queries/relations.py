"""Relations of features: what they were counted of, top tokens, co-firing neighbours, flags.

Each ``…_query`` gives rows of current relations alone: those of an earlier merge are not shown.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.tables import (
    extractions,
    feature_flags,
    feature_neighbours,
    feature_ranges,
    feature_tokens,
    relations,
)


class Neighbour(NamedTuple):
    """A feature that fires together with another."""

    neuron_index: int
    tokens: int
    """On which both fire."""
    jaccard: float
    """``tokens`` of those on which either fires."""
    pmi: float
    """log2 of how many times more often both fire than if they were independent."""


class Neighbours(NamedTuple):
    """The strongest neighbours of a feature."""

    tokens: int
    """On which the feature itself fires, in what was looked at."""
    neighbours: list[Neighbour]


def relations_query(extraction_id: int) -> sa.Select[Any]:
    """What relations were counted of (``scope``, ``sample_one_in``, ``sample_count``, ``token_count``,
    ``finished_at``); no row where they are not computed for the current result."""
    columns = (relations.c[name] for name in ("scope", "sample_one_in", "sample_count", "token_count", "finished_at"))
    query = sa.select(*columns).where(relations.c.extraction_id == extraction_id, relations_are_current(extraction_id))
    return query.execution_options(about="what relations were counted of")


def tokens_query(extraction_id: int, neuron_index: int, place: str = "firing") -> sa.Select[Any]:
    """Top tokens of a feature, the most frequent first; ``place`` is ``firing`` or ``next``."""
    names = ("rank", "token_id", "token", "count", "mean_activation", "share")
    of_feature = (feature_tokens.c.extraction_id == extraction_id) & (feature_tokens.c.neuron_index == neuron_index)
    query = (
        sa.select(*(feature_tokens.c[name] for name in names))
        .where(of_feature, feature_tokens.c.place == place, relations_are_current(extraction_id))
        .order_by(feature_tokens.c.rank)
    )
    return query.execution_options(about=f"its top tokens: {place}")


def neighbours_query(extraction_id: int, neuron_index: int) -> sa.Select[Any]:
    """The strongest neighbours of a feature as one row, see ``feature_neighbours``."""
    query = sa.select(feature_neighbours.c.tokens, feature_neighbours.c.neighbours).where(
        feature_neighbours.c.extraction_id == extraction_id,
        feature_neighbours.c.neuron_index == neuron_index,
        relations_are_current(extraction_id),
    )
    return query.execution_options(about="the features that fire together with it")


def flags_query(extraction_id: int, neuron_index: int) -> sa.Select[Any]:
    """Flags of a feature with their details."""
    of_feature = (feature_flags.c.extraction_id == extraction_id) & (feature_flags.c.neuron_index == neuron_index)
    query = (
        sa.select(feature_flags.c.flag, feature_flags.c.detail)
        .where(of_feature, relations_are_current(extraction_id))
        .order_by(feature_flags.c.flag)
    )
    return query.execution_options(about="its flags")


def flag_counts_query(extraction_id: int) -> sa.Select[Any]:
    """How many features have each flag."""
    query = (
        sa.select(feature_flags.c.flag, sa.func.count().label("features"))
        .where(feature_flags.c.extraction_id == extraction_id, relations_are_current(extraction_id))
        .group_by(feature_flags.c.flag)
        .order_by(feature_flags.c.flag)
    )
    return query.execution_options(about="features of each flag")


def ranges_query(extraction_id: int, neuron_index: int) -> sa.Select[Any]:
    """The further intervals of a feature as one row, see ``feature_ranges``; none where none were asked for."""
    of_feature = (feature_ranges.c.extraction_id == extraction_id) & (feature_ranges.c.neuron_index == neuron_index)
    query = sa.select(feature_ranges.c.ranges).where(of_feature, relations_are_current(extraction_id))
    return query.execution_options(about="its further intervals")


def find_relations(connection: sa.Connection, extraction_id: int) -> sa.Row[Any] | None:
    """What relations were counted of; None where they are not computed for the current result."""
    return connection.execute(relations_query(extraction_id)).one_or_none()


def tokens_of(connection: sa.Connection, extraction_id: int, neuron_index: int, place: str = "firing") -> list[Any]:
    """Rows of ``tokens_query``."""
    return list(connection.execute(tokens_query(extraction_id, neuron_index, place)).all())


def neighbours_of(connection: sa.Connection, extraction_id: int, neuron_index: int) -> Neighbours | None:
    """The strongest neighbours of a feature; None where they are not computed for the current result."""
    row = connection.execute(neighbours_query(extraction_id, neuron_index)).one_or_none()
    return None if row is None else Neighbours(row.tokens, [Neighbour(*one) for one in row.neighbours])


def flags_of(connection: sa.Connection, extraction_id: int, neuron_index: int) -> dict[str, Any]:
    """Flag -> its details."""
    return {row.flag: row.detail for row in connection.execute(flags_query(extraction_id, neuron_index))}


def flag_counts(connection: sa.Connection, extraction_id: int) -> dict[str, int]:
    """Flag -> number of features that have it."""
    return {row.flag: row.features for row in connection.execute(flag_counts_query(extraction_id))}


def relations_are_current(extraction_id: int) -> sa.ColumnElement[bool]:
    """Whether the relations of an extraction are those of its current merge: a condition that looks at one row."""
    both = sa.select(relations.c.extraction_id).join(extractions, extractions.c.id == relations.c.extraction_id)
    return both.where(
        relations.c.extraction_id == extraction_id, relations.c.merge_fingerprint == extractions.c.fingerprint
    ).exists()
