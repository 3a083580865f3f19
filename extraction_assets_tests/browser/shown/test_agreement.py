"""Measures of what two features have in common, by hand."""

import pytest

from extraction_assets.browser.shown.agreement import agreement, overlap


def test_samples_and_positions_of_both_are_counted() -> None:
    found = overlap({1: [4, 2], 2: [0], 3: [5]}, {2: [0, 7], 1: [2], 9: [5]})
    assert found == (3, 3, 2, 3, 3, 2, 1)
    assert found.sample_jaccard == 2 / 4
    assert found.position_jaccard == 2 / 4


def test_firings_in_samples_that_only_one_keeps_are_left_out() -> None:
    found = overlap({1: [0, 1, 2]}, {2: [0, 1, 2]})
    assert (found.positions_a, found.positions_b, found.positions) == (0, 0, 0)
    assert (found.sample_jaccard, found.position_jaccard) == (0.0, None)


def test_features_without_examples_have_nothing_to_compare() -> None:
    assert overlap({}, {}).sample_jaccard is None


def test_equal_shares_agree_whatever_the_counts() -> None:
    found = agreement([0, 1, 3, 0], [0, 10, 30, 0])
    assert found == (1.0, 1.0, 0)


def test_the_overlap_is_the_sum_of_the_smaller_shares() -> None:
    found = agreement([2, 2, 0, 0], [0, 1, 1, 2])
    assert found is not None
    assert found.overlap == pytest.approx(0.25)


def test_a_feature_of_another_scale_agrees_when_it_is_multiplied() -> None:
    found = agreement([0, 0, 1, 3], [1, 3, 0, 0])
    assert found == (0.0, 1.0, 2)


def test_a_feature_that_never_fires_agrees_with_none() -> None:
    assert agreement([0, 0], [1, 1]) is None
