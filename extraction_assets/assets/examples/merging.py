"""All chunk tables of an SAE as one, in memory that does not grow with their number."""

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
from extraction_assets.engine.statistics.registry import FeatureStatistics
from extraction_assets.stores.chunk_files import TableFile

_MOST_THREADS = 8
_SHARD_EXAMPLES = 1 << 20
"""That are kept of a range of features which is merged at once, at most: what merging takes beside them is bounded."""


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
        self, latent_dim: int, top_k: int, min_activation: float, rules: DrawRules | None, pool: ThreadPoolExecutor
    ) -> None:
        shards = max(_threads(), -(-latent_dim * top_k // _SHARD_EXAMPLES))
        self._table = ShardedHeap(
            lambda features: DeferredTopKHeap(len(features), top_k, min_activation), latent_dim, shards, pool
        )
        self._draws = MergedDraws(latent_dim, rules, shards, pool)
        self._expectation = Expectation(top_k, rules)
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


def merge_tables(
    chunks: Iterable[TableFile],
    top_k: int,
    min_activation: float = 0.0,
    merged_one: Callable[[], object] = lambda: None,
    rules: DrawRules | None = None,
) -> Merged:
    """Tables of disjoint samples as one, and what was drawn by ``rules`` beside them. Every file is read once, and no
    table is kept as it is."""
    merging: _Merging | None = None
    with shard_threads(_threads()) as pool, ThreadPoolExecutor(3, "merge") as beside:
        for chunk in chunks:
            if merging is None:
                merging = _Merging(len(chunk.statistics.sample_count), top_k, min_activation, rules, pool)
            merging.add(chunk, beside)
            merged_one()
        assert merging is not None, "an extraction has at least one chunk"
        return merging.build()
