"""Sums over all firings that the other relations are shares of."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from extraction_assets.engine.relations.parts import NO_TOKEN, Group, TokenPart


class Totals(NamedTuple):
    """What was looked at."""

    samples: int
    tokens: int
    """Counted positions."""
    firings: np.ndarray
    """int64 [F]: tokens on which each feature fires."""
    first_firings: np.ndarray
    """int64 [F]: of them, those at the first counted position of their sample."""
    occurrences: np.ndarray
    """int64 [V]: counted positions at which each token stands; V is one above the largest id."""
    next_occurrences: np.ndarray
    """int64 [V]: counted positions that each token comes after."""
    together: np.ndarray
    """int64 [F]: of each feature, the firings of all features on the tokens on which it fires, its own too: the steps
    of counting its pairs one by one."""

    @property
    def pairs(self) -> int:
        """Steps of counting all pairs."""
        return int(self.together.sum())


def count_totals(groups: Iterable[Group]) -> Totals:
    """One pass. ValueError if there is no group."""
    total: Totals | None = None
    for group in groups:
        found = _totals_of(group.tokens)
        total = found if total is None else _sum(total, found)
    if total is None:
        raise ValueError("no samples to look at")
    return total


def _totals_of(part: TokenPart) -> Totals:
    lengths = np.diff(part.row_pointers)
    at_first = part.feature_ids[np.repeat(part.first, lengths)]
    following = part.next_ids[part.counted]
    return Totals(
        part.num_samples,
        int(part.counted.sum()),
        np.bincount(part.feature_ids, minlength=part.num_features),
        np.bincount(at_first, minlength=part.num_features),
        np.bincount(part.token_ids[part.counted]),
        np.bincount(following[following != NO_TOKEN]),
        _together(part, lengths),
    )


def _together(part: TokenPart, lengths: np.ndarray) -> np.ndarray:
    """Doubles add these whole numbers exactly, below 2^53."""
    beside = np.repeat(lengths.astype(np.float64), lengths)
    return np.bincount(part.feature_ids, weights=beside, minlength=part.num_features).astype(np.int64)


def _sum(one: Totals, other: Totals) -> Totals:
    added: dict[str, Any] = {
        name: _add(left, right) if isinstance(left := getattr(one, name), np.ndarray) else left + right
        for name, right in other._asdict().items()
    }
    return Totals(**added)


def _add(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Counts of different lengths count as zero beyond their end."""
    total = np.zeros(max(len(left), len(right)), dtype=np.int64)
    total[: len(left)] += left
    total[: len(right)] += right
    return total
