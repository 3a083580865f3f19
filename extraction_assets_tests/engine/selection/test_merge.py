"""Merging is one pass in any grouping and order, and the deferred heap is merging in bounded memory."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.engine.selection import deferred as heap_module
from extraction_assets.engine.selection.merge import (
    DeferredTopKHeap,
    as_dict,
    empty_table,
    merge_top_k_tables,
    ranks_of_rows,
)
from extraction_assets.engine.shapes import TopKTable
from extraction_assets_tests.engine import oracle
from extraction_assets_tests.engine.build import assert_same, chunk_tables, heap_of, legacy, plain, rows_of, select
from extraction_assets_tests.engine.strategies import Drawn, encoded, min_activations, random_features


def merged(tables: list[TopKTable], k: int, num_features: int = 4) -> TopKTable:
    return merge_top_k_tables(tables, k, num_features)


def example_table(neuron: int, sample: int, *activations: float) -> TopKTable:
    """One example that fires at positions 0, 1, ... with descending activations."""
    return TopKTable(
        torch.tensor([neuron]),
        torch.tensor([sample]),
        torch.tensor(activations[:1]),
        torch.tensor([0, len(activations)]),
        torch.arange(len(activations)),
        torch.tensor(activations),
    )


# Merge laws


@given(encoded(max_samples=8), st.sampled_from([1, 2, 3, 100]), st.data())
def test_any_chunks_merged_in_any_order_are_one_pass(drawn: Drawn, k: int, data: st.DataObject) -> None:
    total, num_features = len(drawn.dense), drawn.dense.shape[2]
    cuts = data.draw(st.lists(st.integers(0, total), max_size=4))
    tables = data.draw(st.permutations(chunk_tables(drawn, sorted([0, *cuts, total]), k)))
    assert_same(merged(tables, k, num_features), select(drawn, k))


@given(encoded(max_samples=9), st.sampled_from([1, 2, 3]))
def test_merge_is_associative(drawn: Drawn, k: int) -> None:
    total = len(drawn.dense)
    a, b, c = chunk_tables(
        Drawn(*(np.tile(x, (3,) + (1,) * (x.ndim - 1)) for x in drawn)), [i * total for i in range(4)], k
    )
    left = merged([merged([a, b], k), c], k)
    assert_same(left, merged([a, merged([b, c], k)], k))
    assert_same(left, merged([merged([c, a], k), b], k))


@pytest.mark.slow
@given(encoded(max_samples=6), st.integers(0, 6), st.sampled_from([1, 2, 3]))
def test_merge_is_commutative(drawn: Drawn, cut: int, k: int) -> None:
    tables = chunk_tables(drawn, [0, min(cut, len(drawn.dense)), len(drawn.dense)], k)
    assert_same(merged(tables, k), merged(tables[::-1], k))


@pytest.mark.slow
@given(encoded(), st.sampled_from([1, 2, 100]))
def test_a_table_merged_with_nothing_is_itself(drawn: Drawn, k: int) -> None:
    table = select(drawn, k)
    assert_same(merged([table], k), table)
    assert_same(merged([empty_table(), table, empty_table()], k), table)


@pytest.mark.parametrize("tables", [[], [empty_table()], [empty_table(), empty_table()]])
def test_merging_nothing_is_the_empty_table(tables: list[TopKTable]) -> None:
    assert_same(merged(tables, 3), empty_table())


def test_merge_keeps_the_strongest_and_on_ties_the_lower_sample() -> None:
    tables = [
        example_table(1, 9, 5.0),
        example_table(1, 4, 5.0, 1.0),
        example_table(1, 0, 2.0),
        example_table(0, 7, 1.0),
    ]
    assert plain(merged(tables, 2)) == {
        0: [(1.0, 7, [(0, 1.0)])],
        1: [(5.0, 4, [(0, 5.0), (1, 1.0)]), (5.0, 9, [(0, 5.0)])],
    }


def test_sample_numbers_near_two_to_the_forty_keep_their_order() -> None:
    far = 2**40
    tables = [example_table(2**20 - 1, far + s, v) for s, v in [(3, 1.0), (1, 1.0), (2, 4.0), (0, 1.0)]]
    assert merge_top_k_tables(tables, 3, 2**20).sample_index.tolist() == [far + 2, far, far + 1]


def test_many_chunks_of_a_larger_corpus_merge_to_one_pass() -> None:
    drawn = random_features(90, 6, 20, seed=0)
    for size in (1, 7, 32, 90):
        tables = chunk_tables(drawn, [*range(0, 90, size), 90], 10)
        assert_same(merged(tables, 10, 20), select(drawn, 10))


@pytest.mark.parametrize("order", [1, -1])
def test_a_chunk_merged_twice_is_refused(order: int) -> None:
    tables = [example_table(3, 12, 5.0), example_table(3, 11, 5.0), example_table(3, 12, 5.0)][::order]
    with pytest.raises(ValueError, match="feature 3 has two examples of sample 12: the tables to merge overlap"):
        merged(tables, 1)


def test_a_sample_with_two_different_maxima_is_refused() -> None:
    tables = [example_table(3, 12, 5.0), example_table(3, 20, 4.0), example_table(3, 12, 3.0)]
    with pytest.raises(ValueError, match="feature 3 has two examples of sample 12: the tables to merge overlap"):
        merged(tables, 3)


def test_ranges_of_samples_that_overlap_without_a_common_example_are_merged() -> None:
    tables = [merged([example_table(3, s, 1.0), example_table(2, s, 1.0)], 3) for s in (5, 2)]
    outer = merged([example_table(3, 1, 1.0), example_table(3, 9, 1.0)], 3)
    assert merged([outer, *tables], 9).sample_index.tolist() == [2, 5, 1, 2, 5, 9]


@pytest.mark.parametrize("samples", [(1, 2, 3), (3, 1, 2), (3, 2, 1)])
def test_equals_come_in_the_order_of_their_samples_however_the_tables_are_given(samples: tuple[int, ...]) -> None:
    tables = [example_table(3, sample, 2.0) for sample in samples]
    assert merged(tables, 2).sample_index.tolist() == [1, 2]
    around = merged([example_table(3, 0, 2.0), example_table(3, 9, 2.0)], 2)
    assert merged([around, *tables], 4).sample_index.tolist() == [0, 1, 2, 3]


@given(encoded())
def test_overlapping_chunks_are_refused_wherever_something_fires(drawn: Drawn) -> None:
    table = select(drawn, 100)
    if len(table.neuron_index):
        with pytest.raises(ValueError, match="overlap"):
            merged([table, table], 100)


def test_ranks_count_from_zero_in_each_feature() -> None:
    drawn = Drawn(np.array([[[1, 0, 2]], [[3, 0, 1]]], dtype=np.float32), np.ones((2, 1), dtype=bool))
    neurons = select(drawn, 5).neuron_index.numpy()
    assert ranks_of_rows(neurons, slice(0, 4)).tolist() == [0, 1, 0, 1]
    for size in (1, 2, 3):
        parts = [ranks_of_rows(neurons, slice(first, first + size)) for first in range(0, 4, size)]
        assert np.concatenate(parts).tolist() == [0, 1, 0, 1]


# The deferred heap


@pytest.mark.slow
@given(encoded(max_samples=8), st.sampled_from([1, 2, 3, 100]), st.sampled_from([0, 1, 3, 1000]), st.data())
def test_the_deferred_heap_is_a_merge(drawn: Drawn, k: int, buffer: int, data: st.DataObject) -> None:
    tables = data.draw(st.permutations(chunk_tables(drawn, list(range(len(drawn.dense) + 1)), k)))
    table = heap_of(tables, drawn.dense.shape[2], k, buffer_examples=buffer)
    assert_same(table, select(drawn, k))
    assert as_dict(table) == plain(table) == oracle.top_k(*drawn, k=k)


@given(encoded(max_samples=8), st.sampled_from([1, 2, 3]), min_activations, st.sampled_from([0, 2]))
def test_the_floor_drops_nothing_that_belongs_in(drawn: Drawn, k: int, least: float, buffer: int) -> None:
    heap = DeferredTopKHeap(drawn.dense.shape[2], k, least, buffer_examples=buffer)
    for row in range(len(drawn.dense)):  # samples ascend, as in a chunk
        floor = heap.floor("cpu")
        heap.add_batch(select(rows_of(drawn, row, row + 1), k, first_sample=row, floor=floor))
    assert_same(heap.build_heaps(), legacy(drawn, k, min_activation=least))


@pytest.mark.slow
@given(encoded(max_samples=8), st.sampled_from([1, 2, 3]), st.sampled_from([0, 1, 3]), st.data())
def test_contenders_leave_out_nothing_that_belongs_in(drawn: Drawn, k: int, buffer: int, data: st.DataObject) -> None:
    tables = data.draw(st.permutations(chunk_tables(drawn, list(range(len(drawn.dense) + 1)), k)))
    heap = DeferredTopKHeap(drawn.dense.shape[2], k, buffer_examples=buffer)
    for table in tables:
        heap.add_batch(heap.contenders(table))
    assert_same(heap.build_heaps(), select(drawn, k))


def test_contenders_are_those_that_beat_the_last_example_of_a_full_table() -> None:
    heap = DeferredTopKHeap(5, top_k=2)
    newcomers = merged(
        [example_table(1, 3, 5.0), example_table(1, 9, 2.0, 1.0), example_table(1, 4, 2.0), example_table(4, 7, 0.5)], 9
    )
    assert_same(heap.contenders(newcomers), newcomers)
    for sample, strongest in ((5, 4.0), (6, 2.0)):
        heap.add_batch(example_table(1, sample, strongest))
    heap.build_heaps()
    assert plain(heap.contenders(newcomers)) == {
        1: [(5.0, 3, [(0, 5.0)]), (2.0, 4, [(0, 2.0)])],  # sample 4 comes before the last one, 6, and sample 9 does not
        4: [(0.5, 7, [(0, 0.5)])],  # its table is not full
    }


def test_the_floor_is_min_activation_until_a_feature_is_full() -> None:
    heap = DeferredTopKHeap(2, top_k=2, min_activation=0.25, buffer_examples=0)
    assert heap.floor("cpu").tolist() == [0.25, 0.25]
    heap.add_batch(example_table(1, 0, 3.0))
    assert heap.floor("cpu").tolist() == [0.25, 0.25]
    heap.add_batch(example_table(1, 1, 7.0))
    heap.build_heaps()
    assert heap.floor("cpu").tolist() == [0.25, 3.0]


def test_the_floor_rises_without_asking_for_the_table() -> None:
    heap = DeferredTopKHeap(1, top_k=1, buffer_examples=0)
    for sample in range(4):
        heap.add_batch(example_table(0, sample, 1.0 + sample))
    assert heap.floor("cpu").item() >= 3.0


def test_the_heap_holds_a_bounded_number_of_examples() -> None:
    num_features, k, buffer = 6, 4, 10
    heap = DeferredTopKHeap(num_features, k, buffer_examples=buffer)
    most = 0
    for row in range(300):
        heap.add_batch(select(random_features(1, 3, num_features, seed=row, density=0.9), k, first_sample=row))
        most = max(most, sum(len(table.neuron_index) for table in heap._tables))
    assert num_features * k < most <= num_features * k + max(buffer, num_features * k)


def test_a_heap_gives_its_table_at_any_time() -> None:
    heap = DeferredTopKHeap(4, top_k=2)
    assert_same(heap.build_heaps(), empty_table())
    heap.add_batch(example_table(2, 5, 1.0))
    assert heap.build_heaps().sample_index.tolist() == [5]
    heap.add_batch(example_table(2, 3, 1.0))
    assert heap.build_heaps().sample_index.tolist() == [3, 5]
    assert_same(heap.build_heaps(), heap.build_heaps())


def test_the_floor_of_a_heap_asked_too_early_is_min_activation() -> None:
    heap = DeferredTopKHeap(3, top_k=1, min_activation=0.5)
    heap.build_heaps()
    assert heap.floor("cpu").tolist() == [0.5, 0.5, 0.5]


def test_a_heap_refuses_the_same_sample_twice() -> None:
    heap = DeferredTopKHeap(4, top_k=2)
    heap.add_batch(example_table(2, 5, 1.0))
    heap.add_batch(example_table(2, 5, 1.0))
    with pytest.raises(ValueError, match="sample 5"):
        heap.build_heaps()


def test_a_heap_keeps_100_examples_unless_said_otherwise() -> None:
    assert DeferredTopKHeap(3).top_k == 100


def test_a_heap_of_no_examples_is_an_error() -> None:
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        DeferredTopKHeap(3, top_k=0)


def test_as_dict_lists_examples_strongest_first_without_dead_features() -> None:
    table = merged([example_table(3, 8, 2.0, 1.0), example_table(3, 2, 4.0), example_table(1, 2, 0.5)], 5)
    assert as_dict(table) == {1: [(0.5, 2, [(0, 0.5)])], 3: [(4.0, 2, [(0, 4.0)]), (2.0, 8, [(0, 2.0), (1, 1.0)])]}


@pytest.mark.slow
def test_memory_that_runs_out_merges_half_of_the_features_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Drawn(np.random.default_rng(0).normal(size=(12, 4, 9)).astype(np.float32), np.ones((12, 4), dtype=bool))
    tables = chunk_tables(drawn, [0, 3, 7, 12], 4)
    expected = merge_top_k_tables(tables, 4, 9)
    merge, tried = heap_module._merge, list[int]()

    def limited(parts: Any, *arguments: Any) -> TopKTable:
        tried.append(sum(len(table.neuron_index) for table in parts))
        if tried[-1] > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return merge(parts, *arguments)

    monkeypatch.setattr(heap_module, "_merge", limited)
    assert_same(merge_top_k_tables(tables, 4, 9), expected)
    assert len(tried) > 3
    monkeypatch.setattr(heap_module, "_merge", lambda *_: (_ for _ in ()).throw(MemoryError("none at all")))
    with pytest.raises(MemoryError, match="while the examples of feature 0 are merged"):
        merge_top_k_tables(tables, 4, 9)
