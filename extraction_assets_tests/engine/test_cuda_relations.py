"""Top tokens and neighbours on a GPU: the bits of the CPU, in memory that does not grow with the number of features."""

import numpy as np
import pytest
import torch

from extraction_assets.engine.relations.neighbours import FeatureNeighbours, Room, Way, feature_neighbours
from extraction_assets.engine.relations.parts import Groups
from extraction_assets.engine.relations.top_tokens import PLACES, FeatureTokens, Limits, feature_tokens
from extraction_assets.engine.relations.totals import count_totals
from extraction_assets_tests.engine.relations.build import groups_of, random_corpus, random_part

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def assert_same(one: FeatureNeighbours | FeatureTokens, other: FeatureNeighbours | FeatureTokens) -> None:
    for name, left, right in zip(one._fields, one, other, strict=True):
        assert left.dtype == right.dtype, name
        assert np.array_equal(left, right), name


def groups_of_part(features: int, tokens: int) -> Groups:
    part = random_part(features, tokens, firings=32)
    return Groups(lambda: iter([part]))


@pytest.mark.parametrize(
    ("way", "room"), [("products", Room(side=7)), ("products", Room()), ("scattered", Room(rows=7))]
)
def test_ties_and_tiles_are_as_on_the_cpu(way: Way, room: Room) -> None:
    groups = groups_of(random_corpus(3, samples=40))
    totals = count_totals(groups)
    on_gpu = feature_neighbours(groups, totals, GPU, way=way, room=room)
    assert_same(on_gpu, feature_neighbours(groups, totals, CPU, way="counted"))


@pytest.mark.parametrize("way", ["products", "scattered"])
def test_16_384_features_are_as_on_the_cpu(way: Way) -> None:
    groups = groups_of_part(16_384, 1 << 16)
    totals = count_totals(groups)
    on_gpu = feature_neighbours(groups, totals, GPU, way=way)
    assert_same(on_gpu, feature_neighbours(groups, totals, CPU, way="counted"))


@pytest.mark.parametrize("held", [1, 1 << 27])
@pytest.mark.parametrize("limits", [Limits(), Limits(1 << 18, 1 << 20)])
def test_top_tokens_are_as_on_the_cpu(held: int, limits: Limits) -> None:
    part = random_part(16_384, 1 << 16, firings=32)
    groups = Groups(lambda: iter([part]), held=held)
    totals = count_totals(groups)
    on_gpu, on_cpu = (list(feature_tokens(groups, totals, device, limits=limits)) for device in (GPU, CPU))
    for place in PLACES:
        for one, other in zip(on_gpu, on_cpu, strict=True):
            assert_same(one[place], other[place])


def test_counts_beyond_what_16_bits_hold_are_exact() -> None:
    """bfloat16 holds whole numbers up to 256, float16 up to 2,048: sums must not be rounded to either."""
    groups = groups_of_part(40, 100_003)
    totals = count_totals(groups)
    on_gpu = feature_neighbours(groups, totals, GPU, way="products")
    assert on_gpu.counts.max() > 60_000
    assert_same(on_gpu, feature_neighbours(groups, totals, CPU, way="counted"))


def test_memory_is_that_of_one_tile_however_many_features_there_are() -> None:
    peaks = []
    for features in (16_384, 65_536):
        groups = groups_of_part(features, 1 << 15)
        totals = count_totals(groups)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        feature_neighbours(groups, totals, GPU, way="products")
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < 1.5 * peaks[0]
