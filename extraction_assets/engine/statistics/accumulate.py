"""Statistics of every feature, added up over samples and merged over chunks, as their descriptions say."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from extraction_assets.engine.ordering import ascending_bits
from extraction_assets.engine.selection.intervals import INTERVALS
from extraction_assets.engine.selection.pairs import FiringPairs, pairs_above
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets.engine.statistics.firings import Addition, CountedFirings
from extraction_assets.engine.statistics.registry import (
    STATISTICS,
    FeatureStatistics,
    Statistic,
)

StatisticsUpdate = dict[str, list[Addition]]
"""Statistic -> what some samples add to it, in a form that adds without further memory."""

DTYPES = {"int64": torch.int64, "float32": torch.float32}

_MANTISSA_BITS = 23


def statistics_update(
    features: SparseFeatures, maxima: Tensor, pairs: FiringPairs | None = None, *, without_kernel: bool = False
) -> StatisticsUpdate:
    """What the samples of ``features`` add; counted positions only, ``maxima`` float32 [n, F] their maxima and
    ``pairs`` those of them above 0. Without ``pairs``, statistics that need them are left out
    (``Statistic.only_full``); ``without_kernel``, so are those that kernels count.

    No synchronisation. Peak extra memory of the statistics that have a kernel: 104 bytes per entry and 12 a feature,
    and 40 a pair; the update keeps 56, 12 and 16.
    """
    wanted = described(full=pairs is not None, without_kernel=without_kernel)
    if not wanted:
        return {}
    firings = _counted_firings(features, maxima, pairs)
    return {one.name: one.additions(firings) for one in wanted if one.additions is not None}


def described(*, full: bool, without_kernel: bool = False) -> list[Statistic]:
    """The statistics that ``additions`` describes: of these ``full`` ones or basic ones, and those alone that no kernel
    counts."""
    return [
        one
        for one in STATISTICS
        if one.additions is not None and (full or not one.only_full) and not (without_kernel and one.has_kernel)
    ]


def _counted_firings(features: SparseFeatures, maxima: Tensor, pairs: FiringPairs | None = None) -> CountedFirings:
    bits = ascending_bits(features.values)
    exponent = bits >> _MANTISSA_BITS
    mantissa = (bits & (1 << _MANTISSA_BITS) - 1) | torch.where(exponent > 0, 1 << _MANTISSA_BITS, 0)
    by_interval = None if pairs is None else pairs.features * INTERVALS + pairs.intervals
    return CountedFirings(features.features, mantissa, exponent.clamp_(min=1), maxima, by_interval)


class StatisticsAccumulator:
    """Adds up the statistics of samples; ``bytes_per_feature`` a feature, whatever their number.

    Adds integers and takes maxima alone, so neither the order nor a GPU's scheduling can change a bit. Unless ``full``,
    statistics that need the pairs are None in the end.
    """

    def __init__(self, num_features: int, device: torch.device | str = "cpu", *, full: bool = True) -> None:
        self._added = described(full=full)
        self._totals = {
            one.name: torch.zeros(num_features * (one.size or 1), dtype=DTYPES[one.dtype], device=device)
            for one in self._added
        }
        self._samples_seen, self._tokens_seen = 0, 0

    def count(self, features: SparseFeatures, maxima: Tensor) -> None:
        """Counts samples by the kernels of a GPU, in place; ``maxima`` are ``kernels.pair_maxima(features)``. Counts
        neither samples nor positions: ``add`` does. No synchronisation; needs no memory."""
        from extraction_assets.engine.statistics import kernels

        kernels.count(features, maxima, self._totals)

    def add(self, update: StatisticsUpdate, samples: int, tokens: int) -> None:
        """Counts an update of so many samples and counted positions. No synchronisation; needs no memory, so that it
        cannot fail half-way."""
        for one in self._added:
            for addition in update.get(one.name, []):
                _add(self._totals[one.name], one, addition)
        self._samples_seen += samples
        self._tokens_seen += tokens

    def build(self) -> FeatureStatistics:
        """The statistics so far."""
        found: dict[str, Any] = {
            one.name: self._totals[one.name] if one.size is None else self._totals[one.name].view(-1, one.size)
            for one in self._added
        }
        found |= {one.name: one.derive(found) for one in STATISTICS if one.derive is not None}
        return FeatureStatistics(**found, samples_seen=self._samples_seen, tokens_seen=self._tokens_seen)


def _add(total: Tensor, statistic: Statistic, addition: Addition) -> None:
    """Needs no memory. Of amounts that go to the same number, the sum or the maximum goes there."""
    if addition.at is not None:
        numbers = total[addition.offset :]
        if statistic.merge == "sum":
            numbers.index_add_(0, addition.at, addition.amounts)
        else:
            numbers.scatter_reduce_(0, addition.at, addition.amounts, "amax")
    elif statistic.merge == "sum":
        total.add_(addition.amounts)
    else:
        torch.maximum(total, addition.amounts, out=total)


def feature_statistics(features: SparseFeatures, maxima: Tensor, counted: Tensor) -> FeatureStatistics:
    """Statistics of one group of samples.

    ``features`` holds counted positions only, ``maxima`` float32 [n, F] is ``sample_maxima(features)``,
    ``counted`` bool [n, T]. Two synchronisations. Peak extra memory: that of an update and of an accumulator.
    """
    accumulator = StatisticsAccumulator(features.num_features, features.values.device)
    update = statistics_update(features, maxima, pairs_above(maxima))
    accumulator.add(update, features.num_samples, int(counted.sum()))
    return accumulator.build()


def merge_statistics(parts: Sequence[FeatureStatistics]) -> FeatureStatistics:
    """Statistics of all samples from those of disjoint groups; exact, associative and commutative. A statistic that one
    of them does not have (``Statistic.added_later``) is None."""
    return reduce(_merged, parts)


def add_statistics(total: FeatureStatistics | None, more: FeatureStatistics) -> FeatureStatistics:
    """As ``merge_statistics`` of the two, in the memory of ``total``; of ``more`` alone a copy. New memory for each of
    many chunks would take longer than adding."""
    if total is not None:
        return _merged(total, more, in_place=True)
    copies: dict[str, Any] = {one.name: _copy(getattr(more, one.name)) for one in STATISTICS}
    return more._replace(**copies)


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


def _merged(one: FeatureStatistics, other: FeatureStatistics, *, in_place: bool = False) -> FeatureStatistics:
    found: dict[str, Any] = {}
    for statistic in STATISTICS:
        left, right = getattr(one, statistic.name), getattr(other, statistic.name)
        if left is None or right is None:
            found[statistic.name] = None
        else:
            merge = torch.add if statistic.merge == "sum" else torch.maximum
            found[statistic.name] = merge(left, right, out=left if in_place else None)
    return FeatureStatistics(
        **found,
        samples_seen=one.samples_seen + other.samples_seen,
        tokens_seen=one.tokens_seen + other.tokens_seen,
    )
