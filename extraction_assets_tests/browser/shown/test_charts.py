"""Histograms as places and sizes of a picture."""

from extraction_assets.browser.shown.charts import (
    BASE,
    WIDTH,
    Bin,
    activation_histogram,
    activation_histograms,
    even_histogram,
    span,
)


def counts(**bins: int) -> list[int]:
    return [bins.get(f"b{at}", 0) for at in range(40)]


def test_bins_are_powers_of_two_without_the_empty_ends():
    assert activation_histogram(counts(b20=3, b22=1)).bins == (Bin(1, 2, 3), Bin(2, 4, 0), Bin(4, 8, 1))


def test_the_last_bin_has_no_upper_end():
    assert activation_histogram(counts(b39=2)).bins == (Bin(2.0**19, None, 2),)


def test_the_highest_bar_is_as_high_as_any_other_features_and_one_token_is_seen():
    bars = activation_histogram(counts(b20=1_000_000, b21=1)).bars()
    assert bars[0].y == 4.0
    assert bars[1].height == 1.0
    assert all(round(bar.y + bar.height, 1) == BASE for bar in bars)
    assert bars[1].x + bars[1].width <= WIDTH


def test_a_feature_that_never_fires_has_no_bars():
    never = activation_histogram(counts())
    assert (never.bars(), never.said()) == ([], "no tokens")


def test_a_bar_says_what_it_counts():
    assert activation_histogram(counts(b18=1234)).bars()[0].title == "0.25 to 0.5: 1,234 tokens"


def test_many_bins_have_few_labels():
    labels = [bar.label for bar in activation_histogram([1] * 40).bars()]
    assert 0 < sum(map(bool, labels)) <= 8


def test_two_features_to_compare_share_their_axis():
    one, other = activation_histograms(counts(b20=3), counts(b22=1))
    assert [one_bin.low for one_bin in one.bins] == [one_bin.low for one_bin in other.bins] == [1, 2, 4]


def test_even_bins_reach_from_the_minimum_to_the_maximum():
    assert even_histogram([1, 2], -1.0, 1.0, "tokens").bins == (Bin(-1.0, 0.0, 1), Bin(0.0, 1.0, 2))


def test_open_ends_are_said():
    assert [span(0.0, 1.0), span(2.0, None), span(0.25, 0.5)] == ["below 1", "2 on", "0.25 to 0.5"]
