"""Neighbours on a GPU: the bits of the CPU, in memory that does not grow with the number of features."""

import numpy as np
import pytest
import torch

from extraction_assets.engine.relations import products
from extraction_assets.engine.relations.neighbours import FeatureNeighbours, feature_neighbours
from extraction_assets.engine.relations.parts import Groups
from extraction_assets.engine.relations.totals import count_totals
from extraction_assets_tests.engine.relations.build import groups_of, random_corpus, random_part

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def assert_same(one: FeatureNeighbours, other: FeatureNeighbours) -> None:
    for name, left, right in zip(one._fields, one, other, strict=True):
        assert left.dtype == right.dtype, name
        assert np.array_equal(left, right), name


def groups_of_part(features: int, tokens: int) -> Groups:
    part = random_part(features, tokens, firings=32)
    return Groups(lambda: iter([part]))


@pytest.mark.parametrize("side", [7, products.TILE_FEATURES])
def test_ties_and_tiles_are_as_on_the_cpu(side: int) -> None:
    groups = groups_of(random_corpus(3, samples=40))
    totals = count_totals(groups)
    on_gpu = feature_neighbours(groups, totals, GPU, products=True, side=side)
    assert_same(on_gpu, feature_neighbours(groups, totals, CPU, products=False))


def test_16_384_features_are_as_on_the_cpu() -> None:
    groups = groups_of_part(16_384, 1 << 16)
    totals = count_totals(groups)
    on_gpu = feature_neighbours(groups, totals, GPU, products=True)
    assert_same(on_gpu, feature_neighbours(groups, totals, CPU, products=False))


def test_counts_beyond_what_16_bits_hold_are_exact() -> None:
    """bfloat16 holds whole numbers up to 256, float16 up to 2,048: sums must not be rounded to either."""
    groups = groups_of_part(40, 100_003)
    totals = count_totals(groups)
    on_gpu = feature_neighbours(groups, totals, GPU, products=True)
    assert on_gpu.counts.max() > 60_000
    assert_same(on_gpu, feature_neighbours(groups, totals, CPU, products=False))


def test_memory_is_that_of_one_tile_however_many_features_there_are() -> None:
    peaks = []
    for features in (16_384, 65_536):
        groups = groups_of_part(features, 1 << 15)
        totals = count_totals(groups)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        feature_neighbours(groups, totals, GPU, products=True)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 1.5 * peaks[0]
