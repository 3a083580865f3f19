"""Merging tables on all cores of a CPU: a heap for each of a few ranges of features, filled side by side.

What is kept of a feature depends on its own examples alone, so the ranges change no bit.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Generic

import torch

from extraction_assets.engine.selection.deferred import DeferredHeap, Examples, concatenate, of_features

MakeHeap = Callable[[range], DeferredHeap[Examples]]
"""A heap for a range of features, which it knows by their number in the range."""


@contextlib.contextmanager
def shard_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads of which each computes on one core: torch would start as many threads again in each of them."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, "shard", torch.set_num_threads, (1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def equal_ranges(features: range, count: int) -> list[range]:
    """Consecutive features in ``count`` ranges of one length, or one feature more or less; fewer where there are not as
    many features."""
    count = max(1, min(count, len(features)))
    edges = [features.start + len(features) * number // count for number in range(count + 1)]
    return [range(*pair) for pair in pairwise(edges)]


class ShardedHeap(Generic[Examples]):
    """Heaps of consecutive ranges of ``features``, whose tables are merged at once in the threads of a pool."""

    def __init__(self, make: MakeHeap[Examples], features: range, shards: int, pool: Executor) -> None:
        self._ranges = equal_ranges(features, shards)
        self._heaps: list[DeferredHeap[Examples]] = [make(features) for features in self._ranges]
        self._pool = pool

    def add(self, table: Examples) -> None:
        """The examples of samples that were not added before, on the CPU; those that cannot enter are left out."""
        list(self._pool.map(partial(self._add, table), self._ranges, self._heaps))

    @property
    def held_bytes(self) -> int:
        """Of the examples and of what decides which enter."""
        return sum(heap.held_bytes for heap in self._heaps)

    def build(self) -> Examples:
        """The table of everything added; the heaps are empty afterwards."""
        parts = list(self._pool.map(self._built, self._ranges, self._heaps))
        self._heaps.clear()
        return concatenate(parts)

    def _add(self, table: Examples, features: range, heap: DeferredHeap[Examples]) -> None:
        part = of_features(table, features)
        heap.add_batch(heap.contenders(part._replace(neuron_index=part.neuron_index - features.start)))

    def _built(self, features: range, heap: DeferredHeap[Examples]) -> Examples:
        found = heap.build_heaps()
        return found._replace(neuron_index=found.neuron_index + features.start)
