# ruff: noqa: RUF001
"""Text of others is shown as it is where it can be seen, and written out where it cannot."""

import logging
import sys
import unicodedata

import pytest

from extraction_assets.engine.corpora.visible_text import visible, visible_log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("over\rwritten", "over␍written"),
        ("two\nlines\tand", "two⏎lines⇥and"),
        ("\x7f\0", r"\x7f\x00"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("a\u200bb\u2060c\ufeffd\u00ad", r"a\u200bb\u2060c\ufeffd\xad"),
        ("a\u200cb\u200dc", r"a\u200cb\u200dc"),
        ("\u2028\u2029\x85", r"\u2028\u2029\x85"),
        ("\udc80.txt", r"\udc80.txt"),
        ("a\xa0b", r"a\xa0b"),
        ("\U000e0041", r"\U000e0041"),
        ("\u3164\u115f", r"\u3164\u115f"),
        ("😀\ufe0f\ufe01\ufe02", "😀\ufe0f" + r"\ufe01\ufe02"),
        (" \ufe0f", r" \ufe0f"),
    ],
)
def test_what_is_obeyed_or_not_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain ASCII, {}[]\\ and more",
        "naïve café, e\u0301 and a\u030a",
        "中文，日本語のテキスト。\u3000全角",
        "👍🏽 ❤\ufe0f 👨\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 🇫🇷",
        "مرحبا بالعالم ١٢٣ \u06dd",
        "می\u200cخواهم",  # Persian writes its words with the non-joiner
        "क्\u200dष नमस्ते",
        "שלום",
        "⏎⇥␍ ␣ ▁ Ġ",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_every_control_and_format_character_between_letters_is_written_out() -> None:
    invisible = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"]
    seen = [ch for ch in invisible if unicodedata.name(ch, "").startswith(("ARABIC", "SYRIAC", "KAITHI"))]
    controls = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
    left = [ch for ch in [*invisible, *controls] if ch in visible(f"a{ch}b")]
    assert set(left) == set(seen) - {"\u061c"}


def test_twice_is_the_same_as_once() -> None:
    everything = "".join(map(chr, range(0x30000)))
    assert visible(visible(everything)) == visible(everything)


def test_characters_can_be_kept() -> None:
    assert visible("a\n\tb\r\x1b", keep="\n\t") == "a\n\tb␍\\x1b"


def test_a_log_line_is_shown_and_dagsters_own_events_are_left_alone() -> None:
    lines = logging.LogRecord("a", logging.INFO, "", 0, "document %s", ("a\x1b[2J\nb",), None)
    assert visible_log(lines)
    assert lines.getMessage() == r"document a\x1b[2J⏎b"
    event = logging.makeLogRecord({"msg": "failed:\nmore", "dagster_event": object()})
    assert visible_log(event)
    assert event.getMessage() == "failed:\nmore"
