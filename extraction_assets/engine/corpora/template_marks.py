"""Marks in the texts of messages, by which they are found again in what a chat template makes of them."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby
from typing import NamedTuple

from extraction_assets.engine.corpora.documents import CorpusError

_PRIVATE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
"""Characters of the private use planes, of which the marks are."""


class Mark(NamedTuple):
    """Where a mark was put."""

    message: int
    text: str
    """The text it was put into, without white space at its ends."""
    offset: int
    """How many characters of ``text`` stand before it."""


class Marks:
    """Characters that a text does not have, and what each of them marks."""

    def __init__(self, text: str, where: str) -> None:
        there, self._where = set(text), where
        self._free = (mark for mark in map(chr, chain(*_PRIVATE)) if mark not in there)
        self._taken: list[str] = []
        self._known: dict[str, Mark] = {}

    def clear(self) -> None:
        """Forgets what was marked; the characters are used again."""
        self._known.clear()

    def puts(self, message: int, places: Sequence[float]) -> Callable[[str], str]:
        """A function that puts a mark into a text of a message at each of ``places``, from 0 to 1 of its length."""

        def marked(text: str) -> str:
            inside = text.strip()
            before, _, after = text.partition(inside) if inside else (text, "", "")
            pieces, last = [before], 0
            for offset in (int(place * len(inside)) for place in places if inside):
                pieces += [inside[last:offset], self._new(Mark(message, inside, offset))]
                last = offset
            return "".join([*pieces, inside[last:], after])

        return marked

    def _new(self, mark: Mark) -> str:
        if len(self._known) == len(self._taken):
            self._taken.append(self._unused())
        character = self._taken[len(self._known)]
        self._known[character] = mark
        return character

    def _unused(self) -> str:
        found = next(self._free, None)
        if found is None:
            raise CorpusError(f"{self._where} holds more texts than can be told apart: divide it into several rows")
        return found

    def read(self, text: str) -> tuple[list[tuple[int, Mark]], str]:
        """(position, mark) of the marks in a text, and the text without them; a position is one in that."""
        if not self._known:
            return [], text
        pattern = re.compile(f"[{''.join(self._known)}]")
        found = [(one.start() - number, self._known[one[0]]) for number, one in enumerate(pattern.finditer(text))]
        return found, pattern.sub("", text)


def runs(found: list[tuple[int, Mark]], text: str) -> Iterator[tuple[int, int, int]]:
    """(message, start, stop) of marks of one message in a row, without white space at the ends. Where the mark of an
    end is not there, as far as the text goes on as the message does."""
    for message, group in groupby(found, key=lambda one: one[1].message):
        marks = list(group)
        (start, first), (stop, last) = marks[0], marks[-1]
        before = first.text[: first.offset][::-1]
        start -= _common(before, text[max(0, start - len(before)) : start][::-1])
        after = last.text[last.offset :]
        stop += _common(after, text[stop : stop + len(after)])
        inside = text[start:stop]
        yield message, stop - len(inside.lstrip()), start + len(inside.rstrip())


def _common(one: str, other: str) -> int:
    """How many first characters of two texts are the same."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
