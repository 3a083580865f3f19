"""What the database must hold of a part of the features, computed without the code of the merge."""

import operator
import random
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
import torch

from extraction_assets.assets.examples.drawn import Draw, ExpectedDraws
from extraction_assets.database.tables import features
from extraction_assets.database.views import feature_activations, feature_draws
from extraction_assets.engine.selection.merge import Firings, as_dict
from extraction_assets.engine.shapes import DrawRules, TopKTable
from extraction_assets.engine.statistics.accumulate import DTYPES
from extraction_assets.engine.statistics.registry import (
    COLUMNS,
    STATISTICS,
    FeatureStatistics,
)
from extraction_assets.engine.statistics.rows_and_sentences import feature_rows
from extraction_assets.stores.chunk_files import FeaturePart, TableFile

CHECKED_FEATURES = 64

Examples = list[tuple[float, int, Firings]]


Row = dict[str, Any]
"""Column of ``features`` -> its value."""


class Expected(NamedTuple):
    """What the database must hold of one feature."""

    examples: Examples
    row: Row
    draws: list[Draw] | None = None
    """None if nothing was drawn from some chunk."""


class Expectation:
    """A seeded part of the features, computed directly from the chunk tables without the code of the merge.

    Its memory does not grow with the number of chunks.
    """

    def __init__(self, top_k: int, rules: DrawRules | None = None, part: FeaturePart | None = None) -> None:
        """Of a ``part`` of the features, the same as of all of them."""
        self._top_k, self._part = top_k, part
        self._draws = ExpectedDraws(rules)
        self._examples: dict[int, Examples] = {}
        self._numbers: dict[str, list[Any] | None] = {}
        self._seen = {"samples_seen": 0, "tokens_seen": 0}

    def add(self, chunk: TableFile) -> None:
        """Add a chunk, as its file holds it."""
        table, statistics = chunk.table, chunk.statistics
        features, latent_dim = self._part or FeaturePart.of_all(len(statistics.sample_count))
        chosen = [one for one in _seeded_features(latent_dim) if one in features]
        self._draws.add(chunk.draws, chosen)
        for feature, span in zip(chosen, _spans(table, chosen), strict=True):
            known = self._examples.get(feature, [])
            least = known[-1][0] if len(known) == self._top_k else 0.0
            examples = [*known, *_examples_in(table, feature, span, least)]
            self._examples[feature] = sorted(examples, key=lambda example: (-example[0], example[1]))[: self._top_k]
        for one in STATISTICS:
            tensor = getattr(statistics, one.name)
            numbers = None if tensor is None else tensor[[one - features.start for one in chosen]].tolist()
            first = one.name not in self._numbers
            self._numbers[one.name] = numbers if first else _added(self._numbers[one.name], numbers, one.merge)
        for name in self._seen:
            self._seen[name] += getattr(statistics, name)

    def by_feature(self) -> dict[int, Expected]:
        """Feature -> what must be stored; nothing where none of a part is among the chosen."""
        if not self._examples:
            return {}
        rows = _rows_of(self._numbers, self._seen)
        return {
            feature: Expected(examples, row, self._draws.of(feature))
            for (feature, examples), row in zip(self._examples.items(), rows, strict=True)
        }


def differences(connection: sa.Connection, extraction_id: int, expected: dict[int, Expected]) -> list[str]:
    """What of the stored rows is not as expected; nothing if all is."""
    wrong = []
    for feature, right in expected.items():
        if _stored_examples(connection, extraction_id, feature) != right.examples:
            wrong.append(f"examples of feature {feature}")
        if _stored_draws(connection, extraction_id, feature) != (right.draws or []):
            wrong.append(f"draws of feature {feature}")
        if _stored_row(connection, extraction_id, feature) != right.row:
            wrong.append(f"counts of feature {feature}")
    return wrong


def _seeded_features(latent_dim: int) -> list[int]:
    return sorted(random.Random(0).sample(range(latent_dim), min(CHECKED_FEATURES, latent_dim)))


def _added(known: list[Any] | None, more: list[Any] | None, merge: str) -> list[Any] | None:
    """Numbers of some features, in lists of lists, with those of further samples; None if either is None."""
    if known is None or more is None:
        return None
    if known and isinstance(known[0], list):
        return [_added(one, other, merge) for one, other in zip(known, more, strict=True)]
    plain = operator.add if merge == "sum" else max
    return [plain(one, other) for one, other in zip(known, more, strict=True)]


def _rows_of(numbers: dict[str, list[Any] | None], seen: dict[str, int]) -> list[Row]:
    """What ``features`` must say of features with these merged statistics."""
    tensors: dict[str, Any] = {
        one.name: None if numbers[one.name] is None else torch.tensor(numbers[one.name], dtype=DTYPES[one.dtype])
        for one in STATISTICS
    }
    return feature_rows(FeatureStatistics(**{**tensors, **seen}))


def _spans(table: TopKTable, features: list[int]) -> list[range]:
    """Where the examples of each feature are. One search for all of them."""
    wanted = np.array(features)
    firsts, lasts = np.searchsorted(table.neuron_index.numpy(), (wanted, wanted + 1)).tolist()
    return [range(first, last) for first, last in zip(firsts, lasts, strict=True)]


def _examples_in(table: TopKTable, feature: int, span: range, least: float) -> Examples:
    """Those with at least this maximum: of a table, which has the strongest first, a beginning of its ``span``."""
    first, last = span.start, span.stop
    last = first + int(np.count_nonzero(table.max_activation.numpy()[first:last] >= least))
    if first == last:
        return []
    offsets = table.firing_offsets[first : last + 1]
    feature_table = TopKTable(
        table.neuron_index[first:last],
        table.sample_index[first:last],
        table.max_activation[first:last],
        offsets - offsets[0],
        table.positions[int(offsets[0]) : int(offsets[-1])],
        table.activations[int(offsets[0]) : int(offsets[-1])],
    )
    return as_dict(feature_table)[feature]


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


def _stored_draws(connection: sa.Connection, extraction_id: int, feature: int) -> list[Draw]:
    fd = feature_draws.c
    query = (
        sa.select(fd.interval, fd.sample_index, fd.max_activation, fd.positions, fd.activations)
        .where(fd.extraction_id == extraction_id, fd.neuron_index == feature)
        .order_by(fd.interval, fd.rank)
    )
    return [
        (interval, sample, strongest, list(zip(positions, activations, strict=True)))
        for interval, sample, strongest, positions, activations in connection.execute(query)
    ]


def _stored_row(connection: sa.Connection, extraction_id: int, feature: int) -> Row:
    columns = [features.c[column.name] for column in COLUMNS]
    chosen = (features.c.extraction_id == extraction_id) & (features.c.neuron_index == feature)
    return dict(connection.execute(sa.select(*columns).where(chosen)).mappings().one())
