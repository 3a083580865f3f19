"""Marks in the texts of messages, by which they are found again in what a chat template makes of them."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import NamedTuple

from extraction_assets.engine.corpora.documents import CorpusError

_PRIVATE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
"""Characters of the private use planes, of which the marks are."""
_MOST_TRIED = 16
"""Places of an end of a message that are tried."""


class Mark(NamedTuple):
    """Where a mark was put."""

    message: int
    text: str
    """The text it was put into, without white space at its ends."""
    offset: int
    """How many characters of ``text`` stand before it."""

    @property
    def place(self) -> float:
        """What ``Marks.puts`` puts it again by: half a character further, so that no rounding makes another of it."""
        return (self.offset + 0.5) / len(self.text)

    def moved(self, characters: int) -> "Mark":
        """The same that many characters later."""
        return self._replace(offset=self.offset + characters)


Found = tuple[int, Mark]
"""A position in what a template makes of messages, and the mark that stands there or would."""


class Run(NamedTuple):
    """What stands together of a text of a message. An end is certain, or one of several places, outermost first."""

    message: int
    starts: list[Found]
    stops: list[Found]


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

    def read(self, text: str) -> tuple[list[Found], str]:
        """(position, mark) of the marks in a text, and the text without them; a position is one in that."""
        if not self._known:
            return [], text
        pattern = re.compile(f"[{''.join(self._known)}]")
        found = [(one.start() - number, self._known[one[0]]) for number, one in enumerate(pattern.finditer(text))]
        return found, pattern.sub("", text)


def runs(found: list[Found], text: str) -> Iterator[Run]:
    """Marks of one message in a row. Where the mark of an end is not there, the text goes on as the message does.

    If it goes on so to the message's end, that is certain. Else the template has left something out, such as earlier
    reasoning, and what it writes there may look the same: the last character of ``<Assistant>`` is that of
    ``</think>``. Then every place between is possible, of which the mark's is the last.
    """
    for message, group in groupby(found, key=lambda one: one[1].message):
        marks = list(group)
        yield Run(message, _starts(*marks[0], text), _stops(*marks[-1], text))


def _starts(at: int, mark: Mark, text: str) -> list[Found]:
    before = mark.text[: mark.offset]
    same = _common(before[::-1], text[max(0, at - len(before)) : at][::-1])
    if same == len(before):
        return [(at - same, mark.moved(-same))]
    return _few(((at - n, mark.moved(-n)) for n in range(same, 0, -1) if not text[at - n].isspace()), (at, mark))


def _stops(at: int, mark: Mark, text: str) -> list[Found]:
    after = mark.text[mark.offset :]
    same = _common(after, text[at : at + len(after)])
    if same == len(after):
        return [(at + same, mark.moved(same))]
    return _few(((at + n, mark.moved(n)) for n in range(same, 0, -1) if not text[at + n - 1].isspace()), (at, mark))


def _few(possible: Iterator[Found], mark: Found) -> list[Found]:
    """Not too many places; where more are possible, the outermost is taken if none of these is found to be right."""
    tried = list(islice(possible, _MOST_TRIED))
    return [*tried, tried[0] if next(possible, None) else mark]


def _common(one: str, other: str) -> int:
    """How many first characters of two texts are the same."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
