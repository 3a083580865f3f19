"""Neighbours equal a comparison of all pairs of features, whichever way they are counted."""

from typing import Any, get_args

import numpy as np
import pytest
import torch

from extraction_assets.engine.relations import counting, neighbours, products, scattering
from extraction_assets.engine.relations.counting import row_ranges
from extraction_assets.engine.relations.neighbours import FeatureNeighbours, Room, Way, choose_way, feature_neighbours
from extraction_assets.engine.relations.totals import count_totals
from extraction_assets_tests.engine.relations import oracle
from extraction_assets_tests.engine.relations.build import Corpus, groups_of, random_corpus

CPU = torch.device("cpu")


def found_of(corpus: Corpus, *, way: Way, top: int = 4, room: Room | None = None, **options: Any) -> FeatureNeighbours:
    groups = groups_of(corpus, **options)
    return feature_neighbours(groups, count_totals(groups), CPU, top, way=way, room=room)


def plain(found: FeatureNeighbours) -> dict[int, list[tuple[int, int, float, Any]]]:
    rows: dict[int, list[tuple[int, int, float, Any]]] = {}
    for feature, rank, other, count, jaccard, pmi in zip(*(column.tolist() for column in found), strict=True):
        assert rank == len(rows.setdefault(feature, []))
        rows[feature].append((other, count, jaccard, pytest.approx(pmi, rel=1e-12, abs=1e-12)))
    return rows


@pytest.fixture(params=get_args(Way))
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


@pytest.mark.parametrize("seed", range(4))
def test_they_are_the_strongest_of_all_pairs(way: Way, seed: int) -> None:
    corpus = random_corpus(seed)
    assert plain(found_of(corpus, way=way)) == oracle.neighbours(corpus, 4)


def test_a_table_of_several_tiles_and_products_has_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = random_corpus(5)
    monkeypatch.setattr(products, "_SELECTED", 15)
    monkeypatch.setattr(products.add_products, "__defaults__", (5,))
    assert plain(found_of(corpus, way="products", room=Room(side=7))) == oracle.neighbours(corpus, 4)


@pytest.mark.parametrize("dense_share", [1, 1000])
def test_steps_of_counting_change_nothing(monkeypatch: pytest.MonkeyPatch, dense_share: int) -> None:
    corpus = random_corpus(6)
    monkeypatch.setattr(counting, "_GATHERED", 10)
    monkeypatch.setattr(counting, "_DENSE_SHARE", dense_share)
    monkeypatch.setattr(neighbours, "_ROWS_OF_HELD", 7)
    assert plain(found_of(corpus, way="counted")) == oracle.neighbours(corpus, 4)


def test_chunks_that_are_read_again_give_the_same(way: Way) -> None:
    corpus = random_corpus(8)
    found = found_of(corpus, way=way, bounds=[3, 7], group=1, held=1)
    assert plain(found) == oracle.neighbours(corpus, 4)


def test_equal_neighbours_are_ordered_by_index(way: Way) -> None:
    everywhere = np.ones((2, 3, 9), np.float32)
    corpus = Corpus(everywhere, np.zeros((2, 3), np.int64), np.ones((2, 3), bool), np.ones((2, 3), bool))
    found = found_of(corpus, way=way, top=3)
    assert found.other.reshape(9, 3).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3]] + [[0, 1, 2]] * 6
    assert found.pmi.tolist() == [0.0] * 27


def test_some_rows_of_the_table_and_some_pairs_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = random_corpus(5)
    monkeypatch.setattr(scattering.add_scattered, "__defaults__", (50,))
    assert plain(found_of(corpus, way="scattered", room=Room(rows=7))) == oracle.neighbours(corpus, 4)


@pytest.mark.parametrize(
    ("features", "firings", "way"),
    [(1 << 14, 64, "scattered"), (1 << 14, 256, "products"), (1 << 17, 64, "scattered"), (1 << 21, 64, "counted")],
)
def test_on_a_gpu_the_numbers_of_features_and_of_firings_decide(features: int, firings: int, way: Way) -> None:
    totals = count_totals(groups_of(random_corpus(0)))
    none, pairs = np.zeros(features, np.int64), (1 << 20) * firings**2
    many = totals._replace(tokens=1 << 20, firings=none, together=none + pairs // features)
    assert choose_way(many, torch.device("cuda")) == way
    assert choose_way(many, CPU) == "counted"


def test_a_table_of_counts_takes_half_of_the_memory_that_is_free() -> None:
    assert scattering.rows_within(1 << 17, 140) == 1 << 17
    assert scattering.rows_within(1 << 17, 74) == 1 << 16


def test_a_table_of_counts_takes_all_of_a_small_memory() -> None:
    assert scattering.rows_within(1 << 17, 16) == 22 << 10
    assert scattering.rows_within(1 << 17, 9) == 1 << 13
    assert scattering.rows_within(1 << 17, 4) == 0


def test_features_counted_in_one_pass_fire_with_no_more_others_than_memory_takes() -> None:
    totals = count_totals(groups_of(random_corpus(0)))._replace(together=np.array([1, 9, 9, 2, 0]))
    assert list(row_ranges(totals, 6)) == [range(2), range(2, 3), range(3, 5)]  # 5 features: 5 others at most


@pytest.mark.parametrize(("gigabytes", "side"), [(80, 16_384), (5, 8192), (2.5, 4096), (1, 0)])
def test_tiles_fit_the_memory_that_is_free(gigabytes: float, side: int) -> None:
    assert products.side_within(gigabytes) == side


def test_progress_counts_every_feature_once(way: Way) -> None:
    groups, done = groups_of(random_corpus(1)), list[int]()
    feature_neighbours(groups, count_totals(groups), CPU, update=done.append, way=way)
    assert sum(done) == 30
