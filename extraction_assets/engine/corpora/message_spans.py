"""Who speaks where: the positions of each message of a chat inside a text, a document's tokens and a sample."""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class MessageSpan(NamedTuple):
    """Where a message stands: characters of a text, or tokens of a document or of a sample."""

    role: str
    start: int
    stop: int
    """One past the end."""


class SampleMessages(NamedTuple):
    """The messages of N samples, M in all."""

    offsets: np.ndarray
    """int64 [N + 1]: the messages of sample n are rows ``offsets[n]`` to ``offsets[n + 1]`` of ``spans``."""
    spans: np.ndarray
    """int32 [M, 3]: number of the role, first position, one past the last position."""
    roles: list[str]

    def of_sample(self, row: int) -> list[MessageSpan]:
        """The messages of a sample, in the order of its tokens."""
        rows = self.spans[self.offsets[row] : self.offsets[row + 1]].tolist()
        return [MessageSpan(self.roles[role], start, stop) for role, start, stop in rows]

    def rows_of(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows of ``spans`` [m], messages of each sample [n]) of some samples [n], in their order."""
        first = np.asarray(self.offsets[samples])
        counts = np.asarray(self.offsets[samples + 1]) - first
        before = np.cumsum(counts) - counts
        return np.arange(counts.sum()) + np.repeat(first - before, counts), counts

    def tokens_of_roles(self, first: int, count: int) -> dict[str, int]:
        """How many tokens of ``count`` samples stand in messages of each role."""
        role, start, stop = self.spans[self.offsets[first] : self.offsets[first + count]].T
        tokens = np.bincount(role, weights=stop - start, minlength=len(self.roles)).astype(int).tolist()
        return dict(zip(self.roles, tokens, strict=True))


class SampleMessagesBuilder:
    """Collects the messages of samples one by one. Holds 12 bytes a message and 8 a sample."""

    def __init__(self) -> None:
        self._offsets, self._spans = array("q", [0]), array("i")
        self._roles: dict[str, int] = {}

    def add(self, messages: Sequence[MessageSpan]) -> None:
        """The messages of the next sample."""
        for role, start, stop in messages:
            self._spans.extend((self._roles.setdefault(role, len(self._roles)), start, stop))
        self._offsets.append(len(self._spans) // 3)

    def build(self) -> SampleMessages:
        """The messages of all samples that were added."""
        spans = np.array(self._spans, dtype=np.int32).reshape(-1, 3)
        return SampleMessages(np.array(self._offsets, dtype=np.int64), spans, list(self._roles))


def token_spans(spans: Sequence[MessageSpan], offsets: np.ndarray) -> list[MessageSpan]:
    """Spans of characters as spans of tokens, by the characters int64 [t, 2] that each token stands for.

    A message has every token that holds one of its characters; a token that holds characters of two messages is of the
    first. A message without a token of its own is left out.
    """
    found: list[MessageSpan] = []
    end = 0
    for role, start, stop in spans:
        first = max(end, int(np.searchsorted(offsets[:, 1], start, side="right")))
        last = int(np.searchsorted(offsets[:, 0], stop, side="left"))
        if first < last:
            found.append(MessageSpan(role, first, last))
            end = last
    return found


def shifted(spans: Sequence[MessageSpan], first: int, length: int, place: int) -> Iterator[MessageSpan]:
    """The parts of spans that lie in positions ``first`` to ``first + length``, which stand from ``place`` on."""
    for role, start, stop in spans:
        start, stop = max(start, first), min(stop, first + length)
        if start < stop:
            yield MessageSpan(role, start - first + place, stop - first + place)


def speakers(messages: Sequence[MessageSpan], first: int, stop: int) -> dict[int, str]:
    """Position -> role, at the positions of a window where a reader learns who speaks: where a message begins, and at
    the window's first position inside one that began before it, which `assistant …` says."""
    seen = [span for span in messages if max(span.start, first) < min(span.stop, stop)]
    return {max(span.start, first): span.role if span.start >= first else f"{span.role} …" for span in seen}
