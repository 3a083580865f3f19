"""Neighbours equal a comparison of all pairs of features, whichever way they are counted."""

from typing import Any

import numpy as np
import pytest
import torch

from extraction_assets.engine.relations import counting, neighbours, products
from extraction_assets.engine.relations.neighbours import FeatureNeighbours, choose_products, feature_neighbours
from extraction_assets.engine.relations.totals import count_totals
from extraction_assets_tests.engine.relations import oracle
from extraction_assets_tests.engine.relations.build import Corpus, groups_of, random_corpus

CPU = torch.device("cpu")


def found_of(
    corpus: Corpus, *, as_products: bool, top: int = 4, side: int = 1 << 14, **options: Any
) -> FeatureNeighbours:
    groups = groups_of(corpus, **options)
    return feature_neighbours(groups, count_totals(groups), CPU, top, products=as_products, side=side)


def plain(found: FeatureNeighbours) -> dict[int, list[tuple[int, int, float, Any]]]:
    rows: dict[int, list[tuple[int, int, float, Any]]] = {}
    for feature, rank, other, count, jaccard, pmi in zip(*(column.tolist() for column in found), strict=True):
        assert rank == len(rows.setdefault(feature, []))
        rows[feature].append((other, count, jaccard, pytest.approx(pmi, rel=1e-12, abs=1e-12)))
    return rows


@pytest.fixture(params=[False, True], ids=["counted", "multiplied"])
def as_products(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("seed", range(4))
def test_they_are_the_strongest_of_all_pairs(as_products: bool, seed: int) -> None:
    corpus = random_corpus(seed)
    assert plain(found_of(corpus, as_products=as_products)) == oracle.neighbours(corpus, 4)


def test_a_table_of_several_tiles_and_products_has_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = random_corpus(5)
    monkeypatch.setattr(products, "_SELECTED", 15)
    monkeypatch.setattr(products.add_products, "__defaults__", (5,))
    assert plain(found_of(corpus, as_products=True, side=7)) == oracle.neighbours(corpus, 4)


@pytest.mark.parametrize("dense_share", [1, 1000])
def test_steps_of_counting_change_nothing(monkeypatch: pytest.MonkeyPatch, dense_share: int) -> None:
    corpus = random_corpus(6)
    monkeypatch.setattr(counting, "_GATHERED", 10)
    monkeypatch.setattr(counting, "_DENSE_SHARE", dense_share)
    monkeypatch.setattr(neighbours, "_ROWS_OF_HELD", 7)
    assert plain(found_of(corpus, as_products=False)) == oracle.neighbours(corpus, 4)


def test_chunks_that_are_read_again_give_the_same(as_products: bool) -> None:
    corpus = random_corpus(8)
    found = found_of(corpus, as_products=as_products, bounds=[3, 7], group=1, held=1)
    assert plain(found) == oracle.neighbours(corpus, 4)


def test_equal_neighbours_are_ordered_by_index(as_products: bool) -> None:
    everywhere = np.ones((2, 3, 9), np.float32)
    corpus = Corpus(everywhere, np.zeros((2, 3), np.int64), np.ones((2, 3), bool), np.ones((2, 3), bool))
    found = found_of(corpus, as_products=as_products, top=3)
    assert found.other.reshape(9, 3).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3]] + [[0, 1, 2]] * 6
    assert found.pmi.tolist() == [0.0] * 27


def test_the_weights_of_both_ways_decide_and_only_on_a_gpu() -> None:
    totals = count_totals(groups_of(random_corpus(0)))
    small = totals._replace(tokens=1 << 20, pairs=1 << 32, firings=np.zeros(16_384, np.int64))
    assert choose_products(small, torch.device("cuda"))
    assert not choose_products(small, CPU)
    assert not choose_products(small._replace(firings=np.zeros(1 << 18, np.int64)), torch.device("cuda"))


@pytest.mark.parametrize(("gigabytes", "side"), [(80, 16_384), (5, 8192), (2.5, 4096), (1, 0)])
def test_tiles_fit_the_memory_that_is_free(gigabytes: float, side: int) -> None:
    assert products.side_within(gigabytes) == side


def test_progress_counts_every_feature_once(as_products: bool) -> None:
    groups, done = groups_of(random_corpus(1)), list[int]()
    feature_neighbours(groups, count_totals(groups), CPU, update=done.append, products=as_products)
    assert sum(done) == 30
