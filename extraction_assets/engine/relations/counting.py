"""Tokens on which two features both fire, counted pair by pair on a CPU."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from extraction_assets.engine.relations.parts import Group
from extraction_assets.engine.relations.strongest import Candidates

_GATHERED = 1 << 21
"""Firings looked at in one step: 40 MB, however many tokens a feature fires on."""

_DENSE_SHARE = 8
"""With fewer firings than F over this, sorting them is sooner than counting into F places."""


class Beside(NamedTuple):
    """The features that fire together with one of them."""

    others: np.ndarray
    """int64, ascending, without the feature itself."""
    counts: np.ndarray
    """int64, > 0: tokens on which both fire."""


def count_pairs(groups: Iterable[Group], firings: np.ndarray, top: int, rows: range) -> Candidates:
    """Candidates for the ``top`` strongest neighbours of the features in ``rows``: more than ``top`` of them where some
    are tied, for the caller to choose from.

    For each feature, the firings of all tokens on which it fires are counted: for all features that is the sum over
    tokens of (firings squared) steps. One pass over ``groups``. Memory: 16 bytes a feature of ``rows`` and one that
    fires with it, in two copies; never F * F.
    """
    beside = _of_rows(groups, rows, len(firings))
    found = [
        _strongest(one, firings[feature], firings[one.others], top) for feature, one in zip(rows, beside, strict=True)
    ]
    features = np.repeat(np.arange(rows.start, rows.stop), [len(others) for others, _, _ in found])
    others, counts, jaccard = (torch.from_numpy(np.concatenate(column)) for column in zip(*found, strict=True))
    return Candidates(torch.from_numpy(features), others, counts, jaccard)


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
        new = [_beside(group, feature) for feature in rows]
        found = new if found is None else [_sum(*pair, num_features) for pair in zip(found, new, strict=True)]
    assert found is not None, "an extraction has samples"
    return found


def _beside(group: Group, feature: int) -> Beside:
    """What fires on the tokens of a feature in one group."""
    num_features = group.tokens.num_features
    first, last = group.by_feature.pointers[feature : feature + 2]
    rows = group.by_feature.rows[first:last]
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
    return Beside(others[keep].astype(np.int64), counts[keep].astype(np.int64))


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
    """Of two groups of tokens; whole numbers, which float64 holds up to 2^53."""
    if not len(other.others):
        return one
    others = np.concatenate([one.others, other.others])
    counts = np.bincount(others, weights=np.concatenate([one.counts, other.counts]), minlength=num_features)
    there = np.flatnonzero(counts)
    return Beside(there, counts[there].astype(np.int64))
