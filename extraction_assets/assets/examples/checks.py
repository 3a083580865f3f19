"""Claims about the merged examples, looked at before they are committed."""

import random
from typing import NamedTuple

import dagster as dg
import sqlalchemy as sa
import torch

from extraction_assets.assets.examples.claims import MATCH_TABLES
from extraction_assets.database.tables import feature_activations, features
from extraction_assets.engine.selection.merge import Firings, as_dict
from extraction_assets.engine.shapes import FeatureStatistics, TopKTable

CHECKED_FEATURES = 64

Examples = list[tuple[float, int, Firings]]


class Counts(NamedTuple):
    """What ``features`` must say of a feature."""

    activation_count: int = 0
    token_count: int = 0
    max_activation: float | None = None


class Expected(NamedTuple):
    """What the database must hold of one feature."""

    examples: Examples
    counts: Counts


class Expectation:
    """A seeded part of the features, worked out plainly from the chunk tables, in memory that does not grow with their
    number: no part of the merge is used."""

    def __init__(self, top_k: int) -> None:
        self._top_k = top_k
        self._examples: dict[int, Examples] = {}
        self._counts: dict[int, Counts] = {}

    def add(self, table: TopKTable, statistics: FeatureStatistics) -> None:
        """Count a chunk in, as its file holds it."""
        for feature in _seeded_features(len(statistics.sample_count)):
            own = [*self._examples.get(feature, []), *_examples_in(table, feature)]
            self._examples[feature] = sorted(own, key=lambda example: (-example[0], example[1]))[: self._top_k]
            self._counts[feature] = _added(self._counts.get(feature, Counts()), statistics, feature)

    def by_feature(self) -> dict[int, Expected]:
        """Feature -> what must be stored."""
        return {feature: Expected(own, self._counts[feature]) for feature, own in self._examples.items()}


def compare_with_tables(
    connection: sa.Connection, extraction_id: int, expected: dict[int, Expected]
) -> dg.AssetCheckResult:
    """Whether the stored rows of the expected features are what they must be."""
    wrong = []
    for feature, right in expected.items():
        if _stored_examples(connection, extraction_id, feature) != right.examples:
            wrong.append(f"examples of feature {feature}")
        if _stored_counts(connection, extraction_id, feature) != right.counts:
            wrong.append(f"counts of feature {feature}")
    return dg.AssetCheckResult(
        check_name=MATCH_TABLES,
        passed=not wrong,
        metadata={"features_compared": len(expected)},
        description="; ".join(wrong[:10]) or f"{len(expected)} features worked out again, all equal",
    )


def _seeded_features(latent_dim: int) -> list[int]:
    return sorted(random.Random(0).sample(range(latent_dim), min(CHECKED_FEATURES, latent_dim)))


def _added(counts: Counts, statistics: FeatureStatistics, feature: int) -> Counts:
    strongest = max(float(statistics.max_activation[feature]), counts.max_activation or 0.0)
    return Counts(
        counts.activation_count + int(statistics.sample_count[feature]),
        counts.token_count + int(statistics.token_count[feature]),
        strongest or None,
    )


def _examples_in(table: TopKTable, feature: int) -> Examples:
    first, last = torch.searchsorted(table.neuron_index, torch.tensor([feature, feature + 1])).tolist()
    if first == last:
        return []
    offsets = table.firing_offsets[first : last + 1]
    own = TopKTable(
        table.neuron_index[first:last],
        table.sample_index[first:last],
        table.max_activation[first:last],
        offsets - offsets[0],
        table.positions[int(offsets[0]) : int(offsets[-1])],
        table.activations[int(offsets[0]) : int(offsets[-1])],
    )
    return as_dict(own)[feature]


def _stored_examples(connection: sa.Connection, extraction_id: int, feature: int) -> Examples:
    fa = feature_activations.c
    query = (
        sa.select(fa.max_activation, fa.sample_index, fa.positions, fa.activations)
        .where(fa.extraction_id == extraction_id, fa.neuron_index == feature)
        .order_by(fa.rank)
    )
    return [
        (strongest, sample, list(zip(positions, activations, strict=True)))
        for strongest, sample, positions, activations in connection.execute(query)
    ]


def _stored_counts(connection: sa.Connection, extraction_id: int, feature: int) -> Counts:
    columns = [features.c[name] for name in Counts._fields]
    own = (features.c.extraction_id == extraction_id) & (features.c.neuron_index == feature)
    return Counts(*connection.execute(sa.select(*columns).where(own)).one())
