"""Characters that are split over tokens are shown whole; what is not a character stays as bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.browser.shown.characters import Unit, display_units


def texts(tokens: list[str]) -> list[str]:
    return [unit.text for unit in display_units(tokens)]


def shown_bytes(raw: bytes) -> str:
    """A token as the database holds it, cut anywhere."""
    return raw.decode("utf-8", errors="backslashreplace")


def test_an_emoji_over_three_tokens_is_one_character():
    tokens = ["ok ", "\\xf0", "\\x9f\\x99", "\\x82", "!"]
    assert display_units(tokens) == [Unit(0, 1, "ok "), Unit(1, 4, "🙂"), Unit(4, 5, "!")]


def test_two_cjk_characters_over_four_tokens_are_two_units():
    assert texts(["\\xe6\\xbc", "\\xa2", "\\xe5", "\\xad\\x97"]) == ["漢", "字"]


def test_text_around_the_bytes_stays_where_it_is():
    assert display_units([' "\\xe2\\x80', "\\x9d, he"]) == [Unit(0, 2, ' "”, he')]


def test_a_token_that_ends_one_character_and_begins_the_next_links_both():
    assert display_units(["\\xe2\\x80", "\\x9c\\xe2\\x80", "\\x9d"]) == [Unit(0, 3, "“”")]


@pytest.mark.parametrize(
    "tokens",
    [
        ["\\x80", "\\xff", "a"],  # never UTF-8
        ["\\xe2\\x80"],  # the sample ends inside a character
        ["\\x9c", "st"],  # it begins inside one
        ["\\xe2\\x80", "a", "\\x9c"],  # a character between the bytes
        ["\\xed\\xa0", "\\x80"],  # a surrogate is no character
        ["\\xc0", "\\xaf"],  # an overlong form
        ["\\xf5\\x80", "\\x80\\x80"],  # beyond Unicode
    ],
)
def test_bytes_that_are_no_character_stay_as_they_are(tokens: list[str]):
    assert texts(tokens) == tokens


def test_what_follows_broken_bytes_is_still_joined():
    assert texts(["\\xe2\\xe2", "\\x80\\x9c"]) == ["\\xe2“"]


def test_text_that_looks_like_bytes_but_lies_in_one_token_stays():
    assert texts(["\\xe2\\x80\\x9c", "\\", "xe2"]) == ["\\xe2\\x80\\x9c", "\\", "xe2"]


def test_a_joined_control_character_is_written_out():
    assert texts(["\\xe2\\x80", "\\xae"]) == ["\\u202e"]


@given(st.text(st.sampled_from("aé漢🙂 ”x̂"), max_size=30), st.sets(st.integers(1, 120)))
def test_any_text_cut_anywhere_reads_as_before(text: str, cuts: set[int]):
    raw = text.encode()
    borders = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    units = display_units([shown_bytes(raw[a:b]) for a, b in pairwise(borders)])
    assert "".join(unit.text for unit in units) == text
    assert [at for unit in units for at in range(unit.first, unit.stop)] == list(range(len(borders) - 1))
