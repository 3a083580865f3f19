"""White space as signs: compact, counted, or as it is written."""

import pytest

from extraction_assets.browser.shown.whitespace import Segment, chip_text, segments


def shown(text: str, **how: bool) -> str:
    """The text with its signs in brackets."""
    return "".join(f"[{one.text}]" if one.sign else one.text for one in segments(text, **how))


def test_code_stays_on_one_line():
    assert shown("if a:\n        b = 1\n") == "if a:[⏎⇢]b = 1[⏎]"


def test_a_single_space_needs_no_sign():
    assert shown(" a b ") == " a b "


def test_marks_count_every_space():
    assert shown("a\n  b\tc", marks=True) == "a[⏎··]b[⇥]c"


def test_the_whole_sample_stands_as_it_is_written():
    assert segments("a\n  b", lines=True) == [Segment("a\n  b", False)]


def test_marks_of_the_whole_sample_stand_before_the_white_space_they_name():
    assert shown("a\n b\t", marks=True, lines=True) == "a[⏎]\n[·]b[⇥]\t"


def test_a_line_break_to_shade_gets_a_sign_that_has_a_width():
    assert shown("\n  ", lines=True, signs=True) == "[⏎]\n  "


def test_an_empty_text_is_one_empty_part():
    assert segments("") == [Segment("", False)]


@pytest.mark.parametrize(
    ("token", "text"), [(" ", "·"), (" pop", " pop"), ("⏎   ", "⏎···"), (" " * 12, "⇢12"), ("a b", "a b"), ("", "")]
)
def test_blanks_in_a_box_can_be_counted(token: str, text: str) -> None:
    assert chip_text(token) == text
