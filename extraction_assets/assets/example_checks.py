"""Claims about the merged examples, looked at before they are committed."""

import random
from typing import NamedTuple

import dagster as dg
import sqlalchemy as sa

from extraction_assets.database.tables import feature_activations, features
from extraction_assets.engine.heap import Firings, as_dict
from extraction_assets.engine.shapes import TopKTable
from extraction_assets.plan import ExtractionPlan
from extraction_assets.stores.chunk_files import read_table

NONE_MISSING = "no_chunk_is_missing"
MATCH_TABLES = "examples_match_chunk_tables"

CHECKED_FEATURES = 64

Examples = list[tuple[float, int, Firings]]


def compare_with_tables(
    connection: sa.Connection, extraction_id: int, plan: ExtractionPlan, sae: str
) -> dg.AssetCheckResult:
    """Works out a seeded part of the features again, plainly, from the chunk tables, and compares the stored rows."""
    expected = _Expectation(plan, sae)
    wrong = []
    for feature in expected.features:
        if _stored_examples(connection, extraction_id, feature) != expected.examples(feature):
            wrong.append(f"examples of feature {feature}")
        if _stored_counts(connection, extraction_id, feature) != expected.counts(feature):
            wrong.append(f"counts of feature {feature}")
    return dg.AssetCheckResult(
        check_name=MATCH_TABLES,
        passed=not wrong,
        metadata={"features_compared": len(expected.features)},
        description="; ".join(wrong[:10]) or f"{len(expected.features)} features worked out again, all equal",
    )


class _Counts(NamedTuple):
    activation_count: int
    token_count: int
    max_activation: float | None


class _Expectation:
    """The seeded features' examples and counts, gathered from the chunk tables with plain Python."""

    def __init__(self, plan: ExtractionPlan, sae: str) -> None:
        self._top_k = plan.settings.top_k_examples
        self._examples: dict[int, Examples] = {}
        self._counts: dict[int, _Counts] = {}
        self.features: list[int] = []
        for key in plan.settings.chunk_keys:
            chunk = read_table(plan.chunk_path("top_k_table", key, sae), plan.table_fingerprint(key, sae))
            statistics = chunk.statistics
            if not self.features:
                latent_dim = len(statistics.sample_count)
                self.features = sorted(random.Random(0).sample(range(latent_dim), min(CHECKED_FEATURES, latent_dim)))
            for feature in self.features:
                self._examples.setdefault(feature, []).extend(_examples_in(chunk.table, feature))
                samples, tokens, strongest = self._counts.get(feature, _Counts(0, 0, None))
                here = float(statistics.max_activation[feature])
                self._counts[feature] = _Counts(
                    samples + int(statistics.sample_count[feature]),
                    tokens + int(statistics.token_count[feature]),
                    max(here, strongest or 0.0) or None,
                )

    def examples(self, feature: int) -> Examples:
        return sorted(self._examples[feature], key=lambda example: (-example[0], example[1]))[: self._top_k]

    def counts(self, feature: int) -> _Counts:
        return self._counts[feature]


def _examples_in(table: TopKTable, feature: int) -> Examples:
    rows = (table.neuron_index == feature).nonzero().squeeze(1)
    if not len(rows):
        return []
    first, last = int(rows[0]), int(rows[-1]) + 1
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


def _stored_counts(connection: sa.Connection, extraction_id: int, feature: int) -> _Counts:
    columns = [features.c[name] for name in _Counts._fields]
    own = (features.c.extraction_id == extraction_id) & (features.c.neuron_index == feature)
    return _Counts(*connection.execute(sa.select(*columns).where(own)).one())
