"""Firings with the tokens that they stand at: what every relation is counted from."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from extraction_assets.engine.shapes import FeatureRows, Samples

GROUP_SIZE = 1 << 26
"""Firings and positions that are worked on at once: chunks are joined up to this many. About 0.6 GB as ``TokenPart``,
as much again as ``ByFeature``, and 2 GB while the second is made."""

HELD_SIZE = 1 << 27
"""Up to this many firings and positions stay in memory; more are read again in each pass."""

NO_TOKEN = -1
"""In place of the next token where a sample ends."""


class TokenPart(NamedTuple):
    """The firings of some samples at counted positions, in compressed rows, one row a position (R in all)."""

    row_pointers: np.ndarray
    """int64 [R + 1]"""
    feature_ids: np.ndarray
    """int32 [Z], ascending within a row."""
    values: np.ndarray
    """float32 [Z], all > 0."""
    token_ids: np.ndarray
    """int32 [R]; what stands at padding does not matter."""
    next_ids: np.ndarray
    """int32 [R]: the token after it in the same sample, counted or not, padding never; else ``NO_TOKEN``."""
    counted: np.ndarray
    """bool [R]"""
    first: np.ndarray
    """bool [R]: the first counted position of its sample."""
    sample_index: np.ndarray
    """int64 [S], absolute, ascending: each has R / S rows."""
    num_features: int
    """F"""

    @property
    def num_samples(self) -> int:
        """S"""
        return len(self.sample_index)

    @property
    def num_positions(self) -> int:
        """T"""
        return len(self.counted) // max(1, self.num_samples)

    @property
    def size(self) -> int:
        """Firings and positions."""
        return len(self.values) + len(self.counted)


class ByFeature(NamedTuple):
    """The firings of some consecutive features in a part, ordered by (feature, row)."""

    start: int
    """The first feature."""
    pointers: np.ndarray
    """int64 [features + 1]"""
    rows: np.ndarray
    """int32 [Z]"""
    values: np.ndarray
    """float32 [Z]"""


class Group:
    """Firings of some samples, in both orders."""

    def __init__(self, tokens: TokenPart, *, is_held: bool) -> None:
        self.tokens = tokens
        self._is_held = is_held

    def of_features(self, start: int, stop: int) -> ByFeature:
        """The firings of features ``start`` to ``stop - 1``. Of a group that stays in memory all are put in order once;
        of another one these alone."""
        if not self._is_held:
            return by_feature(self.tokens, start, stop)
        pointers, held = self._by_feature.pointers[start : stop + 1], self._by_feature
        span = slice(int(pointers[0]), int(pointers[-1]))
        return ByFeature(start, pointers - pointers[0], held.rows[span], held.values[span])

    @cached_property
    def _by_feature(self) -> ByFeature:
        return by_feature(self.tokens, 0, self.tokens.num_features)


def token_part(features: FeatureRows, samples: Samples, sample_index: np.ndarray | None = None) -> TokenPart:
    """The counted firings of ``samples``, which ``features`` holds in the same order, on the CPU.

    ``features`` may hold firings at positions that do not count: they are dropped. ``sample_index``, int64 [S], says
    which samples these are if they are not consecutive.
    """
    counted = samples.counted.numpy().reshape(-1)
    pointers, ids, values = features.row_pointers.numpy(), features.feature_ids.numpy(), features.values.numpy()
    lengths = np.diff(pointers)
    if bool((lengths[~counted] > 0).any()):
        keep = np.repeat(counted, lengths)
        ids, values, lengths = ids[keep], values[keep], np.where(counted, lengths, 0)
        pointers = _offsets(lengths)
    counts = samples.counted.numpy()
    first = counts & (counts.cumsum(axis=1) == 1)  # [n, T]
    return TokenPart(
        pointers,
        ids,
        values,
        samples.token_ids.numpy().astype(np.int32).reshape(-1),
        _next_ids(samples).reshape(-1),
        counted,
        first.reshape(-1),
        np.arange(samples.first_sample, samples.first_sample + len(counts)) if sample_index is None else sample_index,
        features.num_features,
    )


def _next_ids(samples: Samples) -> np.ndarray:
    """int32 [n, T]"""
    token_ids, mask = samples.token_ids.numpy(), samples.attention_mask.numpy()
    following = np.full(token_ids.shape, NO_TOKEN, dtype=np.int32)
    following[:, :-1] = np.where(mask[:, 1:], token_ids[:, 1:], NO_TOKEN)
    return following


_JOINED = ("feature_ids", "values", "token_ids", "next_ids", "counted", "first", "sample_index")


def join(parts: list[TokenPart]) -> TokenPart:
    """Parts, one after the other, as one."""
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(part.row_pointers) for part in parts])
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _JOINED}
    return parts[0]._replace(row_pointers=_offsets(lengths), **arrays)


def by_feature(part: TokenPart, start: int, stop: int) -> ByFeature:
    """The firings of features ``start`` to ``stop - 1`` of a part, ordered by (feature, row): stable sorts of 16 bits,
    which NumPy does by radix, in a third of the time of torch's of 32."""
    rows = np.repeat(np.arange(len(part.counted), dtype=np.int32), np.diff(part.row_pointers))
    features, values = part.feature_ids, part.values
    if start > 0 or stop < part.num_features:
        chosen = np.flatnonzero((features >= start) & (features < stop))
        features, rows, values = features[chosen] - np.int32(start), rows[chosen], values[chosen]
    order = np.argsort((features & 0xFFFF).astype(np.uint16), kind="stable")
    if stop - start > 1 << 16:
        order = order[np.argsort((features >> 16).astype(np.uint16)[order], kind="stable")]
    counts = np.bincount(features, minlength=stop - start)
    return ByFeature(start, _offsets(counts), rows[order], values[order])


def row_steps(part: TokenPart, firings: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of rows with at most so many firings, or of one row."""
    first, rows = 0, len(part.counted)
    while first < rows:
        stop = int(np.searchsorted(part.row_pointers, part.row_pointers[first] + firings, side="right")) - 1
        stop = min(max(stop, first + 1), rows)
        yield first, stop
        first = stop


def _offsets(lengths: np.ndarray) -> np.ndarray:
    """int64 [len + 1], from 0 to the sum."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


class Groups:
    """The parts of all samples, joined into groups; iterating gives them again and again, in the same order.

    ``read`` begins a pass over the parts. They stay in memory while there are few (``HELD_SIZE``), and are read
    again otherwise: memory does not grow with the number of samples.
    """

    def __init__(self, read: Callable[[], Iterator[TokenPart]], group: int = GROUP_SIZE, held: int = HELD_SIZE):
        self._read, self._group, self._held = read, group, held
        self._kept: list[Group] | None = None

    @property
    def is_held(self) -> bool:
        """Whether the next pass reads nothing; known after the first."""
        return self._kept is not None

    def __iter__(self) -> Iterator[Group]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Group] | None = []
        seen = 0
        for part in _joined(self._read(), self._group):
            seen += part.size
            kept = None if kept is None or seen > self._held else [*kept, Group(part, is_held=True)]
            yield kept[-1] if kept else Group(part, is_held=False)
        self._kept = kept


def _joined(parts: Iterator[TokenPart], size: int) -> Iterator[TokenPart]:
    """Consecutive parts as one, as long as it is at most of this size (a single part may be larger)."""
    waiting: list[TokenPart] = []
    for part in parts:
        if waiting and sum(one.size for one in waiting) + part.size > size:
            yield join(waiting)
            waiting = []
        waiting.append(part)
    if waiting:
        yield join(waiting)
