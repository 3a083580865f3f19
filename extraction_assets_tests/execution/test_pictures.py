"""Histograms of features: what they count, and the picture that Dagster's UI shows."""

import re
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from extraction_assets.execution.pictures import (
    DENSITY_TITLE,
    EXAMPLES_TITLE,
    Bar,
    density_histogram,
    examples_histogram,
    markdown_picture,
)

SHOWN_IN_PLACE = 1000
"""Dagster's UI shows Markdown below this many characters in place, and the rest behind a link."""


def test_density_counts_features_by_powers_of_ten_of_the_share_of_tokens() -> None:
    shares = np.array([0.0, 0.0, 1e-9, 0.00002, 0.0005, 0.005, 0.05, 0.1, 0.999, 1.0])
    assert density_histogram(shares) == [
        Bar("never", 2),
        Bar("below 0.001 %", 1),
        Bar("0.001 to 0.01 %", 1),
        Bar("0.01 to 0.1 %", 1),
        Bar("0.1 to 1 %", 1),
        Bar("1 to 10 %", 1),
        Bar("10 to 100 %", 3),
    ]


def test_examples_are_counted_from_none_to_all() -> None:
    assert examples_histogram(np.array([0, 1, 1, 3, 4, 4, 4]), top_k=4) == [
        Bar("none", 1),
        Bar("1", 2),
        Bar("2", 0),
        Bar("3", 1),
        Bar("all 4", 3),
    ]


@pytest.mark.parametrize("top_k", [1, 2, 7, 9, 10, 11, 100, 1000])
def test_every_feature_stands_in_one_bar(top_k: int) -> None:
    bars = examples_histogram(np.arange(top_k + 1), top_k)
    assert sum(bar.features for bar in bars) == top_k + 1
    assert bars[0] == Bar("none", 1)
    assert bars[-1] == Bar(f"all {top_k}", 1)


def test_the_picture_is_an_svg_whose_longest_bar_is_the_largest_count() -> None:
    markdown = markdown_picture("a title", [Bar("never", 0), Bar("1 to 10 %", 30), Bar("10 to 100 %", 60)])
    title, image = markdown.split("\n\n")
    assert title == "a title"
    address = re.fullmatch(r"!\[histogram\]\(<data:image/svg\+xml,([^<>\n]*)>\)", image)
    assert address is not None
    picture = ElementTree.fromstring(unquote(address[1]))
    assert [text.text for text in picture if text.tag.endswith("text")] == [
        "never: 0",
        "1 to 10 %: 30",
        "10 to 100 %: 60",
    ]
    (bars,) = (path.get("d") for path in picture if path.tag.endswith("path"))
    lengths = [int(length) for length in re.findall(r"h(\d+)", str(bars))]
    assert lengths[0] == 0
    assert 0 < lengths[1] * 2 == lengths[2]


def test_one_feature_is_seen_beside_a_million() -> None:
    assert re.findall(r"h(\d+)", markdown_picture("t", [Bar("a", 0), Bar("b", 1), Bar("c", 1_000_000)])) == [
        "0",
        "1",
        "190",
    ]


@pytest.mark.parametrize("top_k", [5, 9, 100, 100_000])
def test_pictures_of_a_million_features_are_short_enough_to_be_shown_in_place(top_k: int) -> None:
    features = np.full(1_000_000, top_k)
    assert len(markdown_picture(EXAMPLES_TITLE, examples_histogram(features, top_k))) < SHOWN_IN_PLACE
    assert len(markdown_picture(DENSITY_TITLE, density_histogram(np.full(1_000_000, 0.5)))) < SHOWN_IN_PLACE
