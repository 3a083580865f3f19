"""Draws: the lowest hashes of each feature and interval, by brute force, in any batches, chunks and order."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.engine.selection import deferred
from extraction_assets.engine.selection import draws as draws_module
from extraction_assets.engine.selection.draws import (
    DrawHeap,
    LowestHashFirst,
    empty_draws,
    merge_draws,
    select_with_draws,
)
from extraction_assets.engine.selection.intervals import INTERVALS, OF_ALL, interval_edges
from extraction_assets.engine.selection.pairs import intervals_of, pairs_above
from extraction_assets.engine.selection.select import sample_maxima
from extraction_assets.engine.selection.sequential_draws import DrawsToCompare, LegacyDraws, interval_of
from extraction_assets.engine.selection.sequential_loop import LegacyHeaps, compare_with_legacy
from extraction_assets.engine.shapes import DrawRules, Draws, TopKTable
from extraction_assets_tests import draws_oracle
from extraction_assets_tests.engine.build import assert_same, counted_features, plain_draws, rows_of, select
from extraction_assets_tests.engine.strategies import Drawn, encoded, random_features

RULES = DrawRules(draw_seed=7, interval_examples=2, random_examples=3)
FAR = 2**33

rules = st.builds(
    DrawRules,
    draw_seed=st.integers(0, 2**32 - 1),
    interval_examples=st.integers(0, 3),
    random_examples=st.integers(0, 3),
)


def reduce(
    drawn: Drawn, chosen: DrawRules = RULES, *, first: int = 0, heap: DrawHeap | None = None, k: int = 2
) -> tuple[TopKTable, Draws]:
    """The table and the draws of one group of samples."""
    features = counted_features(drawn)
    order = LowestHashFirst(features.num_features, chosen)
    thresholds = (heap or DrawHeap(features.num_features, chosen)).thresholds("cpu")
    floor = torch.zeros(features.num_features)
    return select_with_draws(features, pairs_above(sample_maxima(features)), first, k, floor, order, thresholds)


def draw(drawn: Drawn, chosen: DrawRules = RULES, **options: Any) -> Draws:
    return reduce(drawn, chosen, **options)[1]


def parts_of(drawn: Drawn, cuts: list[int], chosen: DrawRules = RULES) -> list[Draws]:
    bounds = sorted({0, len(drawn.dense), *(cut for cut in cuts if cut < len(drawn.dense))})
    return [draw(rows_of(drawn, a, b), chosen, first=FAR + a) for a, b in pairwise(bounds)]


def expected(drawn: Drawn, chosen: DrawRules, first: int = 0) -> dict[tuple[int, int], list[draws_oracle.Draw]]:
    sizes = {"per_interval": chosen.interval_examples, "of_all": chosen.random_examples}
    return draws_oracle.drawn(*drawn, first_sample=first, seed=chosen.draw_seed, **sizes)


# Intervals


@given(st.floats(2.0**-149, 2.0**127, width=32))
def test_an_interval_is_the_same_from_bits_logarithm_and_edges(maximum: float) -> None:
    number = int(intervals_of(torch.tensor([maximum])))
    assert number == interval_of(maximum) == draws_oracle.interval(maximum)
    least, most = interval_edges(number)
    assert least <= maximum < most


def test_intervals_lie_side_by_side_from_zero_to_infinity() -> None:
    edges = [interval_edges(number) for number in range(INTERVALS)]
    assert edges[0][0] == 0
    assert edges[-1][1] == float("inf")
    assert all(most == least for (_, most), (least, _) in pairwise(edges))


# One group of samples


@given(encoded(max_samples=8), rules, st.sampled_from([0, 5, FAR]))
def test_draws_of_a_group_equal_brute_force(drawn: Drawn, chosen: DrawRules, first: int) -> None:
    assert plain_draws(draw(drawn, chosen, first=first)) == expected(drawn, chosen, first)


@given(encoded(max_samples=8), st.sampled_from([1, 2, 100]))
def test_the_table_beside_draws_is_the_table_without(drawn: Drawn, k: int) -> None:
    assert_same(reduce(drawn, first=FAR, k=k)[0], select(drawn, k, first_sample=FAR))


@given(encoded(max_samples=8), rules)
def test_the_sequential_loop_draws_the_same(drawn: Drawn, chosen: DrawRules) -> None:
    legacy = LegacyDraws(chosen)
    heaps = LegacyHeaps(drawn.dense.shape[2], 2, 1e30, legacy)  # draws are of all that fires, whatever the minimum
    for row in range(len(drawn.dense)):
        heaps.add_sample(torch.from_numpy(drawn.dense[row]), torch.from_numpy(drawn.counted[row]), FAR + row)
    assert_same(legacy.build_heaps(), draw(drawn, chosen, first=FAR))


def test_nothing_fires_nothing_is_drawn() -> None:
    assert_same(draw(Drawn(np.zeros((2, 3, 4), np.float32), np.ones((2, 3), bool))), empty_draws())


def test_hand_computed_draws() -> None:
    """Feature 0 fires in five samples, four of them with a maximum in [1, 1.5)."""
    dense = np.array([1, 1.25, 3, 1, 1], dtype=np.float32).reshape(5, 1, 1)
    hashes = {row: draws_oracle.hash_of(7, 0, row) for row in range(5)}
    order = sorted(range(5), key=hashes.__getitem__)
    found = draw(Drawn(dense, np.ones((5, 1), bool)))
    assert found.sample_index[found.interval == OF_ALL].tolist() == order[:3]
    assert found.sample_index[found.interval == 40].tolist() == [row for row in order if row != 2][:2]
    assert found.sample_index[found.interval == 43].tolist() == [2]


def test_sizes_beyond_63_bits_of_key_order_the_same() -> None:
    """At F = 2^20, feature and interval take 27 bits, the hash 31 and a sample the rest."""
    few = parts_of(random_features(12, 4, 3, seed=1), [5])
    shifted = [part._replace(neuron_index=part.neuron_index + 2**20 - 3) for part in few]
    merged = merge_draws(shifted, RULES, 2**20)
    hashes = [draws_oracle.hash_of(7, int(f), int(s)) for f, s in zip(merged[0], merged[2], strict=True)]
    keys = list(zip(merged.neuron_index.tolist(), merged.interval.tolist(), hashes, merged[2].tolist(), strict=True))
    assert keys == sorted(keys)
    assert int(merged.neuron_index.max()) == 2**20 - 1


# The comparison with the sequential loop


def agreed(draws: Draws, drawn: Drawn, first: int = 0) -> list[str]:
    """What the comparison of every pair finds."""
    table = select(drawn, 100, first_sample=first)
    probe = {row: torch.from_numpy(drawn.dense[row]) for row in range(len(drawn.dense))}
    counted, features = torch.from_numpy(drawn.counted), range(drawn.dense.shape[2])
    compare = DrawsToCompare(draws, RULES)
    return compare_with_legacy(table, probe, counted, features, first_sample=first, top_k=100, draws=compare).mismatches


@given(encoded(max_samples=8))
def test_right_draws_agree_with_the_sequential_loop(drawn: Drawn) -> None:
    assert agreed(draw(drawn, first=FAR), drawn, FAR) == []


def test_a_draw_that_is_left_out_or_changed_is_found_wherever_it_stands() -> None:
    drawn = random_features(12, 5, 3, seed=4)
    right = draw(drawn)
    for row in range(len(right.neuron_index)):
        others = torch.tensor([other for other in range(len(right.neuron_index)) if other != row])
        assert agreed(deferred.take_examples(right, others), drawn)
        moved = right.interval.clone()
        moved[row] = 79
        assert agreed(right._replace(interval=moved), drawn)
        stronger = right.max_activation.clone()
        stronger[row] += 1
        assert agreed(right._replace(max_activation=stronger), drawn)


def test_draws_by_another_seed_are_found() -> None:
    drawn = random_features(40, 5, 3, seed=4)
    assert "the legacy loop draws otherwise" in agreed(draw(drawn, RULES._replace(draw_seed=8)), drawn)[0]


# Merging


@given(encoded(max_samples=8), rules, st.lists(st.integers(1, 7), max_size=3), st.data())
def test_merged_in_any_groups_and_order_draws_are_those_of_all(
    drawn: Drawn, chosen: DrawRules, cuts: list[int], data: st.DataObject
) -> None:
    parts = data.draw(st.permutations(parts_of(drawn, cuts, chosen)))
    merged = merge_draws(parts, chosen, drawn.dense.shape[2])
    assert plain_draws(merged) == expected(drawn, chosen, FAR)
    assert_same(merged, draw(drawn, chosen, first=FAR))


@given(encoded(max_samples=8), st.integers(1, 6), st.integers(1, 6))
def test_merging_is_associative_and_commutative(drawn: Drawn, one: int, other: int) -> None:
    parts = parts_of(drawn, [one, other])
    a, b, c = [*parts, empty_draws(), empty_draws()][:3]
    size = drawn.dense.shape[2]
    left = merge_draws([a, merge_draws([b, c], RULES, size)], RULES, size)
    assert_same(left, merge_draws([merge_draws([c, a], RULES, size), b], RULES, size))


def test_equal_hashes_go_to_the_lower_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LowestHashFirst, "priorities", lambda _, columns: torch.zeros_like(columns["sample_index"]))
    ones = Drawn(np.ones((5, 1, 1), np.float32), np.ones((5, 1), bool))
    merged = merge_draws(parts_of(ones, [1, 2, 3, 4])[::-1], RULES, 1)
    assert (merged.sample_index - FAR).tolist() == [0, 1, 2, 0, 1]


def test_a_newcomer_with_the_hash_of_the_last_draw_enters_if_its_sample_comes_sooner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hashes of 31 bits may be equal."""
    monkeypatch.setattr(draws_module, "pair_hash", lambda keys, _: torch.full_like(keys, 5))
    ones, heap = Drawn(np.ones((1, 1, 1), np.float32), np.ones((1, 1), bool)), DrawHeap(1, RULES, buffer_examples=0)
    for sample in (9, 8, 7, 3):
        heap.add_batch(draw(ones, first=sample, heap=heap))
        heap.build_heaps()
    assert heap.build_heaps().sample_index.tolist() == [3, 7, 8, 3, 7]


def test_the_same_sample_twice_is_refused() -> None:
    part = draw(random_features(3, 4, 2, seed=0, density=0.9), first=4)
    with pytest.raises(ValueError, match="the tables to merge overlap"):
        merge_draws([part, part], RULES, 2)


def test_memory_that_runs_out_merges_half_of_the_features_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(random_features(30, 4, 9, seed=3), [7, 19])
    right, merge, tried = merge_draws(parts, RULES, 9), deferred._merge, list[int]()

    def limited(tables: Any, *arguments: Any) -> Draws:
        tried.append(sum(len(one.neuron_index) for one in tables))
        if tried[-1] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return merge(tables, *arguments)

    monkeypatch.setattr(deferred, "_merge", limited)
    assert_same(merge_draws(parts, RULES, 9), right)
    assert len(tried) > 3


# The heap


@given(encoded(max_samples=8), rules, st.sampled_from([0, 3]), st.data())
def test_thresholds_drop_nothing_that_belongs_in(
    drawn: Drawn, chosen: DrawRules, buffer: int, data: st.DataObject
) -> None:
    heap = DrawHeap(drawn.dense.shape[2], chosen, buffer_examples=buffer)
    for row in data.draw(st.permutations(range(len(drawn.dense)))):
        heap.add_batch(draw(rows_of(drawn, row, row + 1), chosen, first=FAR + row, heap=heap))
    assert_same(heap.build_heaps(), draw(drawn, chosen, first=FAR))


@given(encoded(max_samples=8), st.sampled_from([0, 3]), st.data())
def test_contenders_leave_out_nothing_that_belongs_in(drawn: Drawn, buffer: int, data: st.DataObject) -> None:
    heap = DrawHeap(drawn.dense.shape[2], RULES, buffer_examples=buffer)
    for part in data.draw(st.permutations(parts_of(drawn, [1, 3, 6]))):
        heap.add_batch(heap.contenders(part))
    assert_same(heap.build_heaps(), draw(drawn, first=FAR))


def test_few_newcomers_pass_the_thresholds_of_a_full_heap() -> None:
    heap = DrawHeap(4, RULES, buffer_examples=0)
    newcomers = []
    for row in range(400):
        part = draw(random_features(1, 6, 4, seed=row, density=0.9), first=row, heap=heap)
        newcomers.append(len(part.neuron_index))
        heap.add_batch(part)
    assert sum(newcomers[-100:]) < sum(newcomers[:10])


def test_the_heap_holds_a_bounded_number_of_examples() -> None:
    heap, most = DrawHeap(4, RULES, buffer_examples=10), 0
    for row in range(200):
        heap.add_batch(draw(random_features(1, 3, 4, seed=row, density=0.9), first=row))
        most = max(most, sum(len(part.neuron_index) for part in heap._tables))
    kept = len(heap.build_heaps().neuron_index)
    assert kept <= 4 * (3 + 2 * INTERVALS)
    assert most <= 2 * kept + 10 + 4 * 2


def test_a_heap_gives_its_draws_at_any_time() -> None:
    heap = DrawHeap(2, RULES)
    assert_same(heap.build_heaps(), empty_draws())
    heap.add_batch(draw(random_features(3, 3, 2, seed=1), first=3))
    assert_same(heap.build_heaps(), heap.build_heaps())
