"""Statistics of every feature over the whole corpus, as integers that merge exactly in any order."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.ordering import ascending_bits
from extraction_assets.engine.shapes import FeatureStatistics, SparseFeatures

HISTOGRAM_BINS = 40
HISTOGRAM_FIRST_EXPONENT = -20
HISTOGRAM_EDGES = [0.0, *(2.0**e for e in range(HISTOGRAM_FIRST_EXPONENT + 1, 20)), float("inf")]
"""Bin b holds activations in [EDGES[b], EDGES[b + 1]): one power of two a bin, the ends open."""

_LIMBS = 32
_EXPONENTS_PER_LIMB = 8  # 256 exponents of a float32 / 32 limbs
_BIAS = 127
_MANTISSA_BITS = 23


class StatisticsUpdate(NamedTuple):
    """What some samples add to the statistics, worked out so that adding it needs no memory."""

    sample_count: Tensor
    """int64 [F]"""
    max_activation: Tensor
    """float32 [F]"""
    limbs: Tensor
    """int64 [Z]: the number of the limb, feature * 32 + limb, that each firing adds to."""
    amounts: Tensor
    """int64 [Z]: what it adds."""
    bins: Tensor
    """int64 [Z]: the number of its bin, feature * 40 + bin."""
    ones: Tensor
    """int64 [Z]"""


def statistics_update(features: SparseFeatures, maxima: Tensor) -> StatisticsUpdate:
    """What the samples of ``features`` add; counted positions only, ``maxima`` float32 [n, F] their maxima.

    An exact sum: a float32 is m * 2^(max(e, 1) - 150) with a 24-bit m. Limb l gathers exponents 8l .. 8l + 7 as
    m << (e mod 8): 31 bits each, so a limb holds 2^32 firings before an int64 could overflow.
    No synchronisation. Peak extra memory: 48 bytes per entry and 12 a feature.
    """
    bits = ascending_bits(features.values)
    exponent = bits >> _MANTISSA_BITS
    bins = (exponent - _BIAS - HISTOGRAM_FIRST_EXPONENT).clamp_(0, HISTOGRAM_BINS - 1)
    mantissa = (bits & 0x7FFFFF) | torch.where(exponent > 0, 1 << _MANTISSA_BITS, 0)
    exponent = exponent.clamp_(min=1)
    return StatisticsUpdate(
        sample_count=(maxima > 0).sum(0),
        max_activation=maxima.amax(0),
        limbs=features.features * _LIMBS + exponent // _EXPONENTS_PER_LIMB,
        amounts=mantissa << (exponent % _EXPONENTS_PER_LIMB),
        bins=features.features * HISTOGRAM_BINS + bins,
        ones=torch.ones_like(bits),
    )


class StatisticsAccumulator:
    """Adds up the statistics of samples; 600 bytes a feature, whatever their number.

    Adds integers and takes maxima alone, so neither the order nor a GPU's scheduling can change a bit.
    """

    def __init__(self, num_features: int, device: torch.device | str = "cpu") -> None:
        self._sample_count = torch.zeros(num_features, dtype=torch.int64, device=device)
        self._max_activation = torch.zeros(num_features, device=device)
        self._limbs = torch.zeros(num_features * _LIMBS, dtype=torch.int64, device=device)
        self._histogram = torch.zeros(num_features * HISTOGRAM_BINS, dtype=torch.int64, device=device)
        self._samples_seen, self._tokens_seen = 0, 0

    def add(self, update: StatisticsUpdate, samples: int, tokens: int) -> None:
        """Counts an update of so many samples and counted positions. No synchronisation; needs no memory, so that it
        cannot fail half-way."""
        self._sample_count.add_(update.sample_count)
        torch.maximum(self._max_activation, update.max_activation, out=self._max_activation)
        self._limbs.index_add_(0, update.limbs, update.amounts)
        self._histogram.index_add_(0, update.bins, update.ones)
        self._samples_seen += samples
        self._tokens_seen += tokens

    def build(self) -> FeatureStatistics:
        """The statistics so far."""
        histogram = self._histogram.view(-1, HISTOGRAM_BINS)
        return FeatureStatistics(
            sample_count=self._sample_count,
            token_count=histogram.sum(1),  # every firing lies in one bin
            max_activation=self._max_activation,
            activation_limbs=self._limbs.view(-1, _LIMBS),
            histogram=histogram,
            samples_seen=self._samples_seen,
            tokens_seen=self._tokens_seen,
        )


def feature_statistics(features: SparseFeatures, maxima: Tensor, counted: Tensor) -> FeatureStatistics:
    """Statistics of one group of samples.

    ``features`` holds counted positions only, ``maxima`` float32 [n, F] is ``sample_maxima(features)``,
    ``counted`` bool [n, T]. One synchronisation. Peak extra memory: 48 bytes per entry and 600 a feature.
    """
    accumulator = StatisticsAccumulator(features.num_features, features.values.device)
    accumulator.add(statistics_update(features, maxima), features.num_samples, int(counted.sum()))
    return accumulator.build()


def activation_sum(statistics: FeatureStatistics) -> np.ndarray:
    """Sum of each feature's firing activations: float64 [F], rounded once per limb (relative error < 1e-14)."""
    limbs = statistics.activation_limbs.cpu().numpy().astype(np.float64)
    scale = np.exp2(np.arange(_LIMBS, dtype=np.float64) * _EXPONENTS_PER_LIMB - 150)
    total: np.ndarray = (limbs * scale).sum(axis=1)
    return total


def mean_activation(statistics: FeatureStatistics) -> np.ndarray:
    """Mean over the tokens on which a feature fires: float64 [F], NaN for a feature that never fires."""
    count = statistics.token_count.cpu().numpy()
    return np.divide(activation_sum(statistics), count, out=np.full(len(count), np.nan), where=count > 0)


def merge_statistics(parts: Sequence[FeatureStatistics]) -> FeatureStatistics:
    """Statistics of all samples from those of disjoint groups; exact, associative and commutative."""
    merged = parts[0]
    for part in parts[1:]:
        merged = FeatureStatistics(
            merged.sample_count + part.sample_count,
            merged.token_count + part.token_count,
            torch.maximum(merged.max_activation, part.max_activation),
            merged.activation_limbs + part.activation_limbs,
            merged.histogram + part.histogram,
            merged.samples_seen + part.samples_seen,
            merged.tokens_seen + part.tokens_seen,
        )
    return merged
