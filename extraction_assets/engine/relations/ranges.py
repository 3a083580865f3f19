"""Further intervals of a sample's maximum, whose cut points are known only when all samples were seen: equal parts of a
feature's maximum, and quantiles."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch

from extraction_assets.engine.relations.parts import Group
from extraction_assets.engine.relations.top_tokens import feature_ranges
from extraction_assets.engine.relations.totals import Totals
from extraction_assets.engine.selection.hashing import pair_hash, sample_keys

RangeKind = Literal["maximum", "quantile"]
"""Parts of equal width between 0 and the feature's maximum; parts of equally many samples."""

RANGE_FIRINGS = 1 << 24
"""Firings that are worked on at once: about 2 GB."""


class RangeRules(NamedTuple):
    """What is asked for."""

    parts: dict[RangeKind, int]
    """Number of parts of each kind."""
    examples: int
    """Drawn from each part, those with the lowest seeded hash of (feature, sample), as from the fixed intervals."""
    draw_seed: int


class FeatureRange(NamedTuple):
    """One part of one feature's samples."""

    kind: RangeKind
    low: float
    high: float
    """Of ``maximum``: [low, high), the last one with the maximum itself. Of ``quantile``: the smallest and the largest
    maximum in it."""
    samples: int
    """All that are in it."""
    drawn: list["DrawnSample"]


class DrawnSample(NamedTuple):
    """A sample that was drawn from a part."""

    sample_index: int
    max_activation: float
    positions: list[int]
    """Of the counted firings, strongest first, ties to the lower position."""
    activations: list[float]


class _Maxima(NamedTuple):
    """One row for each (feature, sample) that fires; Q in all, ordered by (feature, sample)."""

    feature: np.ndarray
    """int64 [Q], from the first feature of the range."""
    sample: np.ndarray
    """int64 [Q]"""
    maximum: np.ndarray
    """float32 [Q]"""
    starts: np.ndarray
    """int64 [Q + 1]: its firings."""
    positions: np.ndarray
    """int64, of all firings."""
    values: np.ndarray
    """float32, of all firings."""


def ranges_of_features(
    groups: Iterable[Group], totals: Totals, rules: RangeRules, range_firings: int = RANGE_FIRINGS
) -> Iterator[tuple[int, list[FeatureRange]]]:
    """(feature, its parts from the weakest) of every feature that fires; parts without samples are left out.

    Exact: all samples of a feature are looked at together. One pass over ``groups`` for each range of features with at
    most ``range_firings`` firings.
    """
    for start, stop in feature_ranges(totals.firings, range_firings):
        maxima = _maxima(groups, start, stop)
        features = torch.from_numpy(maxima.feature + start)
        hashes = pair_hash(sample_keys(rules.draw_seed, torch.from_numpy(maxima.sample)), features).numpy()
        found: dict[int, list[FeatureRange]] = {}
        for kind, parts in rules.parts.items():
            part, edges = _by_maximum(maxima, parts) if kind == "maximum" else _by_quantile(maxima, parts)
            _add(found, kind, maxima, part, parts, edges, hashes, rules.examples)
        for feature in sorted(found):
            yield feature + start, found[feature]


def _maxima(groups: Iterable[Group], start: int, stop: int) -> _Maxima:
    found = []
    for group in groups:
        ordered, length = group.of_features(start, stop), group.tokens.num_positions
        features = np.repeat(np.arange(stop - start, dtype=np.int64), np.diff(ordered.pointers))
        samples = group.tokens.sample_index[ordered.rows // length]
        found.append((features, samples, ordered.rows % length, ordered.values))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    if len(found) > 1:
        order = np.argsort(columns[0], kind="stable")  # groups come in the order of their samples
        columns = [column[order] for column in columns]
    features, samples, positions, values = columns
    is_first = np.ones(len(features), dtype=bool)
    is_first[1:] = (np.diff(features) != 0) | (np.diff(samples) != 0)
    starts = np.flatnonzero(is_first)
    maxima = np.maximum.reduceat(values, starts) if len(starts) else values
    return _Maxima(features[starts], samples[starts], maxima, np.append(starts, len(values)), positions, values)


def _by_maximum(maxima: _Maxima, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [Q]: the part of each maximum; float64 [F', parts + 1]: the cut points."""
    count = int(maxima.feature.max(initial=-1)) + 1
    highest = np.zeros(count)
    np.maximum.at(highest, maxima.feature, maxima.maximum.astype(np.float64))
    edges = highest[:, None] * np.arange(parts + 1) / parts  # [F', parts + 1]
    part = np.zeros(len(maxima.feature), dtype=np.int64)
    for number in range(1, parts):
        part += maxima.maximum >= edges[maxima.feature, number]
    return part, edges


def _by_quantile(maxima: _Maxima, parts: int) -> tuple[np.ndarray, None]:
    """int64 [Q]: sample number r of a feature's n, from the weakest, ties to the lower sample, is in r * parts // n."""
    order = np.lexsort((maxima.sample, maxima.maximum, maxima.feature))
    firsts = np.searchsorted(maxima.feature, maxima.feature)
    counts = np.bincount(maxima.feature)[maxima.feature]
    part = np.empty(len(order), dtype=np.int64)
    part[order] = (np.arange(len(order)) - firsts) * parts // counts  # by feature, both orders are the same
    return part, None


def _add(
    found: dict[int, list[FeatureRange]],
    kind: RangeKind,
    maxima: _Maxima,
    part: np.ndarray,
    parts: int,
    edges: np.ndarray | None,
    hashes: np.ndarray,
    examples: int,
) -> None:
    """The parts of one kind, with the samples that are drawn from each."""
    group = maxima.feature * parts + part
    order = np.lexsort((maxima.sample, hashes, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for first, stop in zip(starts, np.append(starts[1:], len(order)), strict=True):
        members = order[first:stop]
        feature, number = divmod(int(group[members[0]]), parts)
        values = maxima.maximum[members]
        low, high = (values.min(), values.max()) if edges is None else edges[feature, number : number + 2]
        drawn = [_drawn(maxima, row) for row in members[:examples].tolist()]
        found.setdefault(feature, []).append(FeatureRange(kind, float(low), float(high), len(members), drawn))


def _drawn(maxima: _Maxima, row: int) -> DrawnSample:
    span = slice(int(maxima.starts[row]), int(maxima.starts[row + 1]))
    positions, values = maxima.positions[span], maxima.values[span]
    order = np.lexsort((positions, -values))
    maximum = float(maxima.maximum[row])
    return DrawnSample(int(maxima.sample[row]), maximum, positions[order].tolist(), values[order].tolist())
