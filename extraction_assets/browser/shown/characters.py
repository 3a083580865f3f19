r"""Characters that a tokenizer split over several tokens, put together again for display.

The database holds one string a token. A token that is not whole UTF-8 shows its bytes as ``\xe2\x80``, in lower case
(``engine.corpora.display``). Bytes of neighbouring tokens that make up one character are joined here; bytes that are
no character stay as they are shown, and so does text that merely looks like bytes but lies in one token.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from extraction_assets.engine.corpora.visible_text import visible

_BYTES = re.compile(r"(?:\\x[89a-f][0-9a-f])+")
"""Bytes from 0x80 to 0xff as they are shown."""
_WRITTEN = 4  # characters of one byte as it is shown

_SEQUENCE_LENGTH = {**dict.fromkeys(range(0xC2, 0xE0), 2), **dict.fromkeys(range(0xE0, 0xF0), 3)} | dict.fromkeys(
    range(0xF0, 0xF5), 4
)
"""Bytes of a character in UTF-8 by its first one."""


class Unit(NamedTuple):
    """What is shown as one text: one token, or tokens that hold parts of the same characters."""

    first: int
    stop: int
    """One past its last token."""
    text: str


class _Byte(NamedTuple):
    value: int
    token: int
    at: int
    """Where it is written in the token's text."""


class _Split(NamedTuple):
    """A character whose bytes lie in several tokens."""

    text: str
    bytes: tuple[_Byte, ...]


def has_split_characters(tokens: Sequence[str]) -> bool:
    """Whether some token shows bytes, so that a character may be split over several. False for most texts."""
    return "\\x" in "".join(tokens)


def display_units(tokens: Sequence[str]) -> list[Unit]:
    """The tokens of a text as units, in order; every token is in exactly one."""
    if not has_split_characters(tokens):
        return [Unit(at, at + 1, token) for at, token in enumerate(tokens)]
    split = [one for run in _byte_runs(tokens) for one in _split_characters(run)]
    joined_with_next = {at for one in split for at in range(one.bytes[0].token, one.bytes[-1].token)}
    texts = list(tokens)
    for one in reversed(split):  # from the end, so that places before it stay
        for byte in reversed(one.bytes):
            first = byte is one.bytes[0]
            text = texts[byte.token]
            texts[byte.token] = text[: byte.at] + (one.text if first else "") + text[byte.at + _WRITTEN :]
    return list(_units(texts, joined_with_next))


def _units(texts: Sequence[str], joined_with_next: set[int]) -> Iterator[Unit]:
    first = 0
    for at in range(len(texts)):
        if at not in joined_with_next:
            yield Unit(first, at + 1, "".join(texts[first : at + 1]))
            first = at + 1


def _byte_runs(tokens: Sequence[str]) -> Iterator[list[_Byte]]:
    """Bytes that stand side by side, across the borders of tokens."""
    run: list[_Byte] = []
    open_until = -1  # the token at whose end the run stands
    for number, token in enumerate(tokens):
        for match in _BYTES.finditer(token):
            if run and not (match.start() == 0 and open_until == number - 1):
                yield run
                run = []
            run += [_Byte(int(token[at + 2 : at + 4], 16), number, at) for at in range(*match.span(), _WRITTEN)]
            open_until = number if match.end() == len(token) else -1
    if run:
        yield run


def _split_characters(run: list[_Byte]) -> Iterator[_Split]:
    at = 0
    while at < len(run):
        part = tuple(run[at : at + _SEQUENCE_LENGTH.get(run[at].value, 1)])
        text = _decoded(part)
        if text is not None and part[0].token != part[-1].token:
            yield _Split(visible(text), part)
        at += len(part) if text is not None else 1


def _decoded(part: tuple[_Byte, ...]) -> str | None:
    try:
        return bytes(byte.value for byte in part).decode()
    except UnicodeDecodeError:
        return None
