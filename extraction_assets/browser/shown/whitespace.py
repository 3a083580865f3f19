"""White space that can be seen: small signs in the place of line breaks, tabs and runs of spaces."""

import re
from typing import NamedTuple

from extraction_assets.engine.corpora.visible_text import SIGNS

RUN, SPACE = "⇢", "·"
"""What stands for a run of spaces or tabs where they are not counted, and for each space where they are."""

_COMPACT = re.compile(r"[\n\r]|[ \t]{2,}|\t")
_COUNTED = re.compile(r"[\n\r\t ]")
_BREAKS = re.compile(r"[\n\r]")


_SPACES = re.compile(r" {2,}")
_MOST_SPACES = 4


class Segment(NamedTuple):
    """A part of a text."""

    text: str
    sign: bool
    """Whether it is a sign for white space, and no text."""


def chip_text(token: str) -> str:
    """A token in a box of its own, where blanks of different lengths would look alike: a run of spaces is a sign a
    space, or a sign and their number, ``⇢12``."""
    return SPACE if token == " " else _SPACES.sub(_counted, token)


def _counted(run: re.Match[str]) -> str:
    spaces = len(run[0])
    return SPACE * spaces if spaces <= _MOST_SPACES else f"{RUN}{spaces}"


def segments(text: str, marks: bool = False, lines: bool = False, signs: bool = False) -> list[Segment]:
    """A text in parts: what it says, and signs for its white space.

    Without ``lines`` it stands in one line: line breaks and runs of spaces become a sign each, and every space its own
    with ``marks``. With ``lines`` it stands as it is written, the signs before the white space that they stand for only
    with ``marks``; ``signs`` asks for those of line breaks at least, which have no width that could be shaded.
    """
    if lines and not marks:
        return _parts(text, _BREAKS, kept=True) if signs else [Segment(text, False)]
    return _parts(text, _COUNTED if marks else _COMPACT, kept=lines)


def _parts(text: str, signed: re.Pattern[str], kept: bool) -> list[Segment]:
    """``kept``: line breaks and tabs follow their signs."""
    found: list[Segment] = []
    end = 0
    for match in signed.finditer(text):
        if match.start() > end:
            _add(found, text[end : match.start()], False)
        _add(found, _sign(match[0]), True)
        if kept and match[0] in SIGNS:
            _add(found, match[0], False)
        end = match.end()
    if end < len(text) or not found:
        _add(found, text[end:], False)
    return found


def _add(found: list[Segment], text: str, sign: bool) -> None:
    """Signs that follow each other are one segment; so are texts."""
    if found and found[-1].sign == sign:
        found[-1] = Segment(found[-1].text + text, sign)
    else:
        found.append(Segment(text, sign))


def _sign(space: str) -> str:
    if space in "\n\r":
        return SIGNS[space]
    return SIGNS[space] if space == "\t" else SPACE if space == " " else RUN
