"""Tokens on which two features both fire, counted pair by pair on a CPU."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from extraction_assets.engine.relations.parts import ByFeature, Group
from extraction_assets.engine.relations.strongest import Candidates
from extraction_assets.engine.relations.top_tokens import feature_ranges
from extraction_assets.engine.relations.totals import Totals

_GATHERED = 1 << 21
"""Firings looked at in one step: 40 MB, however many tokens a feature fires on."""

_DENSE_SHARE = 8
"""With fewer firings than F over this, sorting them is sooner than counting into F places."""


class Beside(NamedTuple):
    """The features that fire together with one of them."""

    others: np.ndarray
    """int32, ascending, without the feature itself."""
    counts: np.ndarray
    """int32, > 0: tokens on which both fire."""


_BYTES_PER_CELL = 8
"""Of ``Beside``."""

_MOST_ROWS = 1 << 16


def cells_within(memory_gb: float) -> int:
    """Pairs that one pass counts in a quarter of so much memory (GiB): never fewer than 2^22, never more than 2^29."""
    return max(1 << 22, min(1 << 29, int(memory_gb * 2**30 / 4 / _BYTES_PER_CELL)))


def row_ranges(totals: Totals, cells: int, most: int = _MOST_ROWS) -> Iterator[range]:
    """Consecutive features that fire with at most so many others in all, each counted for each; or one feature."""
    bound = np.minimum(totals.together, len(totals.together))
    return (range(*edges) for edges in feature_ranges(bound, cells, most))


def count_pairs(groups: Iterable[Group], firings: np.ndarray, top: int, rows: range) -> Candidates:
    """Candidates for the ``top`` strongest neighbours of the features in ``rows``: more than ``top`` of them where some
    are tied, for the caller to choose from.

    For each feature, the firings of all tokens on which it fires are counted: for all features that is the sum over
    tokens of (firings squared) steps. One pass over ``groups``. Memory: 8 bytes a feature of ``rows`` and one that
    fires with it (``row_ranges``); never F * F.
    """
    beside = _of_rows(groups, rows, len(firings))
    found = [
        _strongest(one, firings[feature], firings[one.others], top) for feature, one in zip(rows, beside, strict=True)
    ]
    features = np.repeat(np.arange(rows.start, rows.stop), [len(others) for others, _, _ in found])
    others, counts, jaccard = (torch.from_numpy(np.concatenate(column)) for column in zip(*found, strict=True))
    return Candidates(torch.from_numpy(features), others.to(torch.int64), counts.to(torch.int64), jaccard)


def _strongest(one: Beside, firings: int, other_firings: np.ndarray, top: int) -> tuple[np.ndarray, ...]:
    """(other, count, Jaccard index) of at least the ``top`` strongest, all that are tied with the last included."""
    others, counts = one
    jaccard = counts / (firings + other_firings - counts)
    if len(others) <= top:
        return others, counts, jaccard
    keep = jaccard >= np.partition(jaccard, -top)[-top]
    return others[keep], counts[keep], jaccard[keep]


def _of_rows(groups: Iterable[Group], rows: range, num_features: int) -> list[Beside]:
    found: list[Beside] | None = None
    for group in groups:
        ordered = group.of_features(rows.start, rows.stop)
        new = (_beside(group, ordered, feature) for feature in rows)
        found = list(new) if found is None else [_sum(*pair, num_features) for pair in zip(found, new, strict=True)]
    assert found is not None, "an extraction has samples"
    return found


def _beside(group: Group, ordered: ByFeature, feature: int) -> Beside:
    """What fires on the tokens of a feature in one group."""
    num_features = group.tokens.num_features
    first, last = ordered.pointers[feature - ordered.start : feature - ordered.start + 2]
    rows = ordered.rows[first:last]
    lengths = group.tokens.row_pointers[rows + 1] - group.tokens.row_pointers[rows]
    if lengths.sum() < num_features // _DENSE_SHARE:
        others, counts = np.unique(_ids_of(group, rows, lengths), return_counts=True)
    else:
        dense = np.zeros(num_features, dtype=np.int64)
        for part in _steps(lengths):
            dense += np.bincount(_ids_of(group, rows[part], lengths[part]), minlength=num_features)
        others = np.flatnonzero(dense)
        counts = dense[others]
    keep = others != feature
    return Beside(others[keep].astype(np.int32), counts[keep].astype(np.int32))


def _steps(lengths: np.ndarray) -> Iterator[slice]:
    """Consecutive tokens with at most ``_GATHERED`` firings, or one token."""
    ends, start = np.cumsum(lengths), 0
    while start < len(lengths):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _GATHERED, side="right")))
        yield slice(start, stop)
        start = stop


def _ids_of(group: Group, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int32: the features that fire on some tokens, one token after the other."""
    ends = np.cumsum(lengths)
    shift = np.repeat(group.tokens.row_pointers[rows] - (ends - lengths), lengths)
    return group.tokens.feature_ids[np.arange(len(shift)) + shift]


def _sum(one: Beside, other: Beside, num_features: int) -> Beside:
    """Of two groups of tokens."""
    if not len(other.others):
        return one
    if not len(one.others):
        return other
    total = np.zeros(num_features, dtype=np.int32)
    total[one.others] = one.counts
    total[other.others] += other.counts  # no feature twice
    there = np.flatnonzero(total)
    return Beside(there.astype(np.int32), total[there])
