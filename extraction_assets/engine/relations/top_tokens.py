"""The tokens on which each feature fires most often, and those that come after its firings."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from extraction_assets.engine.ordering import bits_for
from extraction_assets.engine.relations.parts import NO_TOKEN, Group
from extraction_assets.engine.relations.totals import Totals

Place = Literal["firing", "next"]
PLACES: tuple[Place, ...] = ("firing", "next")
"""The token at which a feature fires, and the one after it in the same sample."""

TOP_TOKENS = 20
RANGE_FIRINGS = 1 << 25
"""Firings that are sorted at once: about 1.5 GB."""

_RANGE_FEATURES = 1 << 16


class FeatureTokens(NamedTuple):
    """Top tokens ordered by (neuron_index, rank), the most frequent first, ties to the lower token id; E in all."""

    neuron_index: np.ndarray
    """int64 [E]"""
    rank: np.ndarray
    """int64 [E], from 0."""
    token_id: np.ndarray
    """int64 [E]"""
    counts: np.ndarray
    """int64 [E]: firings with this token."""
    mean_activation: np.ndarray
    """float64 [E]: of these firings, added up in the order of the corpus."""
    share: np.ndarray
    """float64 [E]: ``counts`` of all places where the token stands at a counted position (``firing``), or after one
    (``next``)."""


def feature_tokens(
    groups: Iterable[Group], totals: Totals, place: Place, top: int = TOP_TOKENS, range_firings: int = RANGE_FIRINGS
) -> Iterator[FeatureTokens]:
    """The top tokens of all features, by ranges of features, ascending.

    Exact: all firings of a feature are sorted together, by one int64 key of (feature, token, place in the corpus), so
    nothing depends on how samples are grouped, sums of activations included. Memory: 40 bytes a firing of a range,
    which holds at most ``range_firings`` unless one feature alone has more. A pass over ``groups`` a range.
    """
    occurrences = totals.occurrences if place == "firing" else totals.next_occurrences
    for start, stop in feature_ranges(totals.firings, range_firings):
        features, tokens, values = _firings_of(groups, start, stop, place)
        yield _top_of(features, tokens, values, occurrences, top, start)


def feature_ranges(firings: np.ndarray, most: int = RANGE_FIRINGS) -> Iterator[tuple[int, int]]:
    """Consecutive ranges of features with at most ``most`` firings each, or of one feature."""
    ends, start = np.cumsum(firings), 0
    while start < len(firings):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + most, side="right"))
        stop = min(max(stop, start + 1), start + _RANGE_FEATURES)
        yield start, stop
        start = stop


def _firings_of(
    groups: Iterable[Group], start: int, stop: int, place: Place
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(feature from ``start``, token id, activation) of the firings of some features, groups one after the other."""
    found = []
    for group in groups:
        pointers = group.by_feature.pointers[start : stop + 1]
        part = slice(int(pointers[0]), int(pointers[-1]))
        ids = group.tokens.token_ids if place == "firing" else group.tokens.next_ids
        tokens = ids[group.by_feature.rows[part]]
        features = np.repeat(np.arange(stop - start, dtype=np.int64), np.diff(pointers))
        values = group.by_feature.values[part]
        known = slice(None) if place == "firing" else tokens != NO_TOKEN
        found.append((features[known], tokens[known], values[known]))
    features, tokens, values = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return features, tokens, values


def _top_of(
    features: np.ndarray, tokens: np.ndarray, values: np.ndarray, occurrences: np.ndarray, top: int, start: int
) -> FeatureTokens:
    number_bits, token_bits = bits_for(max(1, len(features))), bits_for(max(1, len(occurrences)))
    keys = (features << token_bits | tokens) << number_bits | np.arange(len(features))
    keys.sort()  # all different, so any sort will do
    values = values[keys & ((1 << number_bits) - 1)]
    keys >>= number_bits
    starts = np.flatnonzero(np.diff(keys, prepend=-1))  # of each (feature, token)
    counts = np.diff(starts, append=len(keys))
    feature, token = keys[starts] >> token_bits, keys[starts] & ((1 << token_bits) - 1)
    order = np.lexsort((token, -counts, feature))
    firsts = np.searchsorted(feature, feature)  # the order by feature is that of the pairs
    rank = np.arange(len(order)) - firsts
    kept, rank = order[rank < top], rank[rank < top]
    sums = _sums_in_order(values, starts, counts, kept)
    share = counts[kept] / occurrences[token[kept]]
    return FeatureTokens(feature[kept] + start, rank, token[kept], counts[kept], sums / counts[kept], share)


def _sums_in_order(values: np.ndarray, starts: np.ndarray, counts: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """float64 sums of segments, one value after the other (``bincount`` adds so; ``sum`` and ``reduceat`` add by
    pairs)."""
    lengths = counts[kept]
    ends = np.cumsum(lengths)
    number = np.arange(int(lengths.sum())) + np.repeat(starts[kept] - (ends - lengths), lengths)
    return np.bincount(np.repeat(np.arange(len(kept)), lengths), weights=values[number], minlength=len(kept))
