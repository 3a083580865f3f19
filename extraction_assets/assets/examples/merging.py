"""All chunk tables of an SAE as one, in memory that grows neither with their number nor with that of the features.

What is kept of a feature depends on its own examples alone. So the features are merged in as many ranges as it takes
for one of them to fit (``spilled.merge_by_ranges``), and of each table a range reads little more than its own.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from extraction_assets.assets.examples.drawn import MergedDraws
from extraction_assets.assets.examples.expected import Expectation, Expected
from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.selection.shards import ShardedHeap, shard_threads
from extraction_assets.engine.shapes import DrawRules, Draws, TopKTable
from extraction_assets.engine.statistics.accumulate import add_statistics
from extraction_assets.engine.statistics.registry import FeatureStatistics, tensors_of
from extraction_assets.stores.chunk_files import FeaturePart, TableFile

_MOST_THREADS = 8
_SHARD_EXAMPLES = 1 << 20
"""That are kept of a range of features which is merged at once, at most: what merging takes beside them is bounded."""


class TooLargeError(Exception):
    """A merge holds more than it may."""


class Merged(NamedTuple):
    """All chunk tables of an SAE as one."""

    table: TopKTable
    statistics: FeatureStatistics
    numerics: list[dict[str, Any]]
    """The different numerics records of the chunks; more than one means that last bits may differ between chunks."""
    expected: dict[int, Expected]
    """The expected rows of a seeded part of the features, computed without the merge."""
    draws: Draws | None = None
    """What was drawn of every feature; None if a chunk has no draws."""


class _Merging:
    """What is merged so far; its parts take a chunk's table side by side."""

    def __init__(
        self, part: FeaturePart, top_k: int, min_activation: float, rules: DrawRules | None, pool: ThreadPoolExecutor
    ) -> None:
        shards = max(_threads(), -(-len(part.features) * top_k // _SHARD_EXAMPLES))
        self._table = ShardedHeap(
            lambda features: DeferredTopKHeap(len(features), top_k, min_activation), part.features, shards, pool
        )
        self._draws = MergedDraws(part.features, rules, shards, pool)
        self._expectation = Expectation(top_k, rules, part)
        self._statistics: FeatureStatistics | None = None
        self._numerics: list[dict[str, Any]] = []

    def add(self, chunk: TableFile, beside: ThreadPoolExecutor) -> None:
        """A chunk; returns when nothing needs its table any more."""
        steps = (
            beside.submit(self._table.add, chunk.table),
            beside.submit(self._draws.add, chunk.draws),
            beside.submit(self._add_statistics, chunk.statistics),
        )
        self._expectation.add(chunk)
        for numerics in chunk.record.get("all_numerics", [chunk.record.get("numerics", {})]):
            if numerics not in self._numerics:
                self._numerics.append(numerics)
        wait(steps)
        for step in steps:
            step.result()

    @property
    def held_bytes(self) -> int:
        """Of examples, draws and statistics."""
        counts = 0 if self._statistics is None else sum(one.nbytes for one in tensors_of(self._statistics))
        return self._table.held_bytes + self._draws.held_bytes + counts

    def build(self) -> Merged:
        """All chunks as one."""
        assert self._statistics is not None, "an extraction has at least one chunk"
        return Merged(
            self._table.build(),
            self._statistics,
            self._numerics,
            self._expectation.by_feature(),
            self._draws.build(),
        )

    def _add_statistics(self, more: FeatureStatistics) -> None:
        self._statistics = add_statistics(self._statistics, more)


def _threads() -> int:
    return min(_MOST_THREADS, os.cpu_count() or 1)


def expected_bytes(chunk: TableFile, top_k: int, count: int) -> int:
    """What is held of examples and statistics once so many tables like this one are merged: what is kept, and as much
    that is not compacted yet; the sums, and the counts of a table. How much is drawn is not foreseen."""
    table, features = chunk.table, len(chunk.statistics.sample_count)
    kept = min(features * top_k, count * len(table.neuron_index))
    an_example = sum(column.nbytes for column in table) / max(1, len(table.neuron_index))
    counts = sum(one.nbytes for one in tensors_of(chunk.statistics))
    return int((2 if count > 1 else 1) * kept * an_example) + 2 * counts


def merge_tables(
    chunks: Iterable[TableFile],
    top_k: int,
    min_activation: float = 0.0,
    merged_one: Callable[[], object] = lambda: None,
    rules: DrawRules | None = None,
    part: FeaturePart | None = None,
    most_bytes: int | None = None,
) -> Merged:
    """Tables of disjoint samples as one, and what was drawn by ``rules`` beside them. No table is kept as it is.

    With a ``part`` the tables hold its features alone. Raises TooLargeError if more than ``most_bytes`` are held.
    """
    merging: _Merging | None = None
    with shard_threads(_threads()) as pool, ThreadPoolExecutor(3, "merge") as beside:
        for chunk in chunks:
            if merging is None:
                part = part or FeaturePart.of_all(len(chunk.statistics.sample_count))
                merging = _Merging(part, top_k, min_activation, rules, pool)
            merging.add(chunk, beside)
            del chunk
            if most_bytes is not None and merging.held_bytes > most_bytes:
                raise TooLargeError
            merged_one()
        assert merging is not None, "an extraction has at least one chunk"
        return merging.build()
