"""Top tokens equal what a count of every firing gives, however samples and features are grouped."""

from typing import Any

import numpy as np
import pytest
import torch

from extraction_assets.engine.relations.parts import NO_TOKEN
from extraction_assets.engine.relations.top_tokens import (
    PLACES,
    FeatureTokens,
    Limits,
    Place,
    feature_ranges,
    feature_tokens,
)
from extraction_assets.engine.relations.totals import count_totals
from extraction_assets_tests.engine.relations import oracle
from extraction_assets_tests.engine.relations.build import Corpus, groups_of, part_of, random_corpus

CPU = torch.device("cpu")
STREAMED = {"bounds": [3, 6, 9], "group": 1, "held": 1, "limits": Limits(60, 90)}
"""Read again in each pass, and with so little memory that features are left to further passes."""


def found_of(corpus: Corpus, place: Place, top: int = 3, limits: Limits | None = None, **options: Any) -> list[Any]:
    groups = groups_of(corpus, **options)
    return [one[place] for one in feature_tokens(groups, count_totals(groups), CPU, top, limits)]


def plain(parts: list[FeatureTokens]) -> dict[int, list[tuple[int, int, float, float]]]:
    found: dict[int, list[tuple[int, int, float, float]]] = {}
    for feature, rank, *row in (row for part in parts for row in zip(*part, strict=True)):
        assert rank == len(found.setdefault(int(feature), []))
        found[int(feature)].append(tuple(row))
    return found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", range(4))
def test_counts_means_and_shares_equal_a_count_of_every_firing(place: Place, seed: int) -> None:
    corpus = random_corpus(seed)
    assert plain(found_of(corpus, place)) == oracle.top_tokens(corpus, place, 3)


@pytest.mark.parametrize(
    "options", [{"bounds": [1, 5, 5, 11]}, {"bounds": [4, 8], "group": 1}, {"limits": Limits(40, 40)}, STREAMED]
)
def test_chunks_groups_and_ranges_of_features_change_no_bit(options: dict[str, Any]) -> None:
    corpus = random_corpus(7, density=0.5)
    assert plain(found_of(corpus, "firing", **options)) == plain(found_of(corpus, "firing"))


def test_equal_counts_go_to_the_lower_token() -> None:
    corpus = Corpus(
        np.ones((1, 4, 1), np.float32), np.array([[9, 4, 6, 4]]), np.ones((1, 4), bool), np.ones((1, 4), bool)
    )
    assert [part.token_id.tolist() for part in found_of(corpus, "firing")] == [[4, 6, 9]]


def test_the_next_token_is_a_real_one_of_the_same_sample_counted_or_not() -> None:
    ids, mask = np.array([[5, 6, 7, 0], [8, 9, 5, 6]]), np.array([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=bool)
    counted = mask & (ids != 6)
    part = part_of(Corpus(np.ones((2, 4, 1), np.float32), ids, mask, counted), 0, 2)
    assert part.next_ids.tolist() == [6, 7, NO_TOKEN, NO_TOKEN, 9, 5, 6, NO_TOKEN]


def test_a_mean_is_the_exact_sum_rounded_once_by_the_count() -> None:
    values = np.array([2.0**53, 1, 1, 0.5], np.float32).reshape(4, 1, 1)  # in their order the last three are lost
    corpus = Corpus(values, np.zeros((4, 1), np.int64), np.ones((4, 1), bool), np.ones((4, 1), bool))
    (found,) = found_of(corpus, "firing", bounds=[2])
    assert found.mean_activation.tolist() == [(2.0**53 + 2) / 4]


def test_every_feature_is_in_one_range_which_holds_as_many_firings_as_allowed() -> None:
    firings = np.array([3, 3, 9, 0, 1, 1])
    assert list(feature_ranges(firings, 6)) == [(0, 2), (2, 3), (3, 6)]
