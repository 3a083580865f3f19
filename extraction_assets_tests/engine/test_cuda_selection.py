"""The kernels that select and count on a GPU and their twins in plain PyTorch: the same bits."""

import pytest
import torch

from extraction_assets.engine.selection.draws import DrawHeap, DrawThresholds, select_with_draws
from extraction_assets.engine.selection.merge import DeferredTopKHeap
from extraction_assets.engine.selection.pairs import pairs_above
from extraction_assets.engine.selection.select import sample_maxima
from extraction_assets.engine.selection.sparse import dense_to_sparse, keep_counted, take_samples
from extraction_assets.engine.shapes import DrawRules, Draws, SparseFeatures, TopKTable
from extraction_assets.engine.statistics.accumulate import StatisticsAccumulator, statistics_update
from extraction_assets.engine.statistics.registry import STATISTICS, FeatureStatistics
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.strategies import random_features

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)
RULES = [DrawRules(11, 2, 3), DrawRules(2**32 - 1, 0, 3), DrawRules(0, 2, 0)]
SIZES = [(1, 1, 1), (7, 5, 3), (64, 16, 33), (300, 3, 9), (5, 9, 700), (3, 4, 2049), (257, 8, 1000)]
FIRST = 2**33


def features_of(n: int, t: int, f: int, density: float = 0.3) -> SparseFeatures:
    drawn = random_features(n, t, f, seed=n, density=density)
    dense, counted = torch.from_numpy(drawn.dense).to(CUDA), torch.from_numpy(drawn.counted).to(CUDA)
    return keep_counted(dense_to_sparse(dense), counted)


def by_twins(features: SparseFeatures, k: int, rules: DrawRules, at_once: int) -> tuple[TopKTable, Draws]:
    top, heap = DeferredTopKHeap(features.num_features, k), DrawHeap(features.num_features, rules)
    for first in range(0, features.num_samples, at_once):
        part = take_samples(features, first, min(first + at_once, features.num_samples))
        table, draws = select_with_draws(
            *(part, pairs_above(sample_maxima(part)), FIRST + first, k),
            *(top.floor(CUDA), heap.order, heap.thresholds(CUDA)),
        )
        top.add_batch(table)
        heap.add_batch(draws)
    return top.build_heaps(), heap.build_heaps()


def by_kernels(
    features: SparseFeatures, k: int, rules: DrawRules | None, at_once: int, buffer_examples: int
) -> tuple[TopKTable, Draws]:
    kernels = pytest.importorskip("extraction_assets.engine.selection.kernels", reason="needs Triton")
    top = DeferredTopKHeap(features.num_features, k, buffer_examples=buffer_examples)
    heap = DrawHeap(features.num_features, rules or DrawRules(), buffer_examples)
    for first in range(0, features.num_samples, at_once):
        part = take_samples(features, first, min(first + at_once, features.num_samples))
        thresholds = None if rules is None else DrawThresholds(heap.thresholds(CUDA), rules.draw_seed)
        contenders = kernels.Contenders(part, kernels.pair_maxima(part), FIRST + first, top.floor(CUDA), thresholds)
        sizes = contenders.sizes.tolist()
        assert contenders.fits(sizes)
        table, draws = contenders.collect(sizes)
        assert torch.equal(table.neuron_index, table.neuron_index.sort().values)
        assert [len(table.positions), len(draws.positions)] == sizes[2:]
        top.add_batch(table)
        heap.add_batch(draws)
    return top.build_heaps(), heap.build_heaps()


@pytest.mark.parametrize(("n", "t", "f"), SIZES)
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("buffer_examples", [5, 1 << 18])  # thresholds from the second group on, or never
def test_table_and_draws_equal_their_twins_bit_for_bit(
    n: int, t: int, f: int, rules: DrawRules, buffer_examples: int
) -> None:
    features = features_of(n, t, f)
    table, draws = by_twins(features, 2, rules, at_once=7)
    found = by_kernels(features, 2, rules, 7, buffer_examples)
    assert_same(found[0], table)
    assert_same(found[1], draws)
    assert_same(by_kernels(features, 2, None, 50, buffer_examples)[0], table)


def test_where_nothing_fires_nothing_is_found() -> None:
    table, draws = by_kernels(features_of(9, 4, 33, density=0.0), 2, RULES[0], 4, 5)
    assert [len(table.neuron_index), len(draws.neuron_index), len(draws.positions)] == [0, 0, 0]


def test_the_same_group_gives_the_same_bits_again() -> None:
    """Blocks write their keys in any order; the sort decides."""
    kernels = pytest.importorskip("extraction_assets.engine.selection.kernels", reason="needs Triton")
    features = features_of(256, 16, 2000)
    found = []
    for _ in range(3):
        thresholds = DrawThresholds(DrawHeap(2000, RULES[0]).thresholds(CUDA), 11)
        floor = torch.zeros(2000, device=CUDA)
        contenders = kernels.Contenders(features, kernels.pair_maxima(features), 0, floor, thresholds)
        found.append(contenders.collect(contenders.sizes.tolist()))
    assert_same(found[0][0], found[1][0])
    assert_same(found[0][1], found[1][1])
    assert_same(found[0][1], found[2][1])


def test_maxima_by_feature_are_those_by_sample() -> None:
    kernels = pytest.importorskip("extraction_assets.engine.selection.kernels", reason="needs Triton")
    features = features_of(257, 8, 1000)
    assert torch.equal(kernels.pair_maxima(features), sample_maxima(features).t())


def counted(features: SparseFeatures, full: bool, *, by_kernels: bool) -> FeatureStatistics:
    """Of the same samples twice."""
    kernels = pytest.importorskip("extraction_assets.engine.selection.kernels", reason="needs Triton")
    accumulator = StatisticsAccumulator(features.num_features, CUDA, full=full)
    for _ in range(2):
        if by_kernels:
            accumulator.count(features, kernels.pair_maxima(features))
            accumulator.add({}, features.num_samples, 1)
        else:
            maxima = sample_maxima(features)
            update = statistics_update(features, maxima, pairs_above(maxima) if full else None)
            accumulator.add(update, features.num_samples, 1)
    return accumulator.build()


@pytest.mark.parametrize(("n", "t", "f"), SIZES)
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("values", ["ties", "any float"])
def test_statistics_equal_their_twins_bit_for_bit(n: int, t: int, f: int, full: bool, values: str) -> None:
    features = features_of(n, t, f)
    if values == "any float":
        generator = torch.Generator().manual_seed(n)
        bits = torch.randint(1, 0x7F800000, (len(features.values),), dtype=torch.int32, generator=generator)
        features = features._replace(values=bits.view(torch.float32).to(CUDA))
    assert_same(counted(features, full, by_kernels=True), counted(features, full, by_kernels=False))


def test_the_statistics_with_a_kernel_are_those_that_say_so() -> None:
    kernels = pytest.importorskip("extraction_assets.engine.statistics.kernels", reason="needs Triton")
    counted_there = {*kernels.OF_FIRINGS, *kernels.OF_SAMPLES, kernels.OF_INTERVALS}
    assert counted_there == {one.name for one in STATISTICS if one.has_kernel}
