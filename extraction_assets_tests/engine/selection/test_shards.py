"""Heaps of ranges of features, filled side by side, keep what one heap keeps."""

from collections.abc import Sequence

import pytest
import torch

from extraction_assets.engine.selection.draws import DrawHeap, merge_draws
from extraction_assets.engine.selection.merge import DeferredTopKHeap, merge_top_k_tables
from extraction_assets.engine.selection.shards import ShardedHeap, shard_threads
from extraction_assets.engine.shapes import DrawRules, Draws, TopKTable

FEATURES, TOP_K = 11, 3
EVERY = range(FEATURES)
RULES = DrawRules(interval_examples=2, random_examples=3, draw_seed=5, sample_one_in=4)


def tables(count: int = 5) -> list[TopKTable]:
    """Of disjoint samples, with ties; not every feature in each."""
    found = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        there = torch.rand(FEATURES, 8, generator=generator) < 0.4
        neurons, samples = there.nonzero(as_tuple=True)
        maxima = torch.randint(1, 5, (len(neurons),), generator=generator).float()
        parts = TopKTable(neurons, samples + 8 * number, maxima, torch.arange(len(neurons) + 1), samples % 4, maxima)
        found.append(merge_top_k_tables([parts], 8, FEATURES))
    return found


def draws() -> list[Draws]:
    found = []
    for table in tables():
        interval = torch.full_like(table.neuron_index, 40)
        found.append(merge_draws([Draws(table.neuron_index, interval, *table[1:])], RULES, FEATURES))
    return found


def assert_same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> None:
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("shards", [1, 2, 5, 50])
@pytest.mark.parametrize("buffer", [0, 1000])
def test_tables_are_merged_as_in_one_heap(shards: int, buffer: int) -> None:
    with shard_threads(3) as pool:
        heap = ShardedHeap(
            lambda features: DeferredTopKHeap(len(features), TOP_K, 0.0, buffer), range(FEATURES), shards, pool
        )
        for table in tables():
            heap.add(table)
        assert_same(heap.build(), merge_top_k_tables(tables(), TOP_K, FEATURES))


@pytest.mark.parametrize("shards", [1, 4])
def test_draws_are_merged_as_in_one_heap_for_their_hash_knows_the_feature(shards: int) -> None:
    with shard_threads(2) as pool:
        heap = ShardedHeap(
            lambda features: DrawHeap(len(features), RULES, 0, features.start), range(FEATURES), shards, pool
        )
        for one in draws():
            heap.add(one)
        assert_same(heap.build(), merge_draws(draws(), RULES, FEATURES))


def test_an_error_of_one_range_is_raised() -> None:
    with shard_threads(2) as pool:
        heap = ShardedHeap(lambda features: DeferredTopKHeap(len(features), TOP_K, 0.0, 0), EVERY, 3, pool)
        with pytest.raises(ValueError, match="the tables to merge overlap"):
            for table in [*tables(), *tables()]:
                heap.add(table)


def test_threads_of_torch_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with shard_threads(2) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == before
