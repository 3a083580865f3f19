"""Statistics of every feature over the whole corpus, as integers that merge exactly in any order."""

from collections.abc import Sequence

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


def feature_statistics(features: SparseFeatures, maxima: Tensor, counted: Tensor) -> FeatureStatistics:
    """Statistics of one group of samples.

    ``features`` holds counted positions only, ``maxima`` float32 [n, F] is ``sample_maxima(features)``,
    ``counted`` bool [n, T]. Scatters of integers and maxima alone, so scheduling cannot change a bit.
    One synchronisation. Peak extra memory: 16 bytes per entry plus 72 * 8 bytes a feature.
    """
    num_features = features.num_features
    bits = ascending_bits(features.values)
    exponent = bits >> _MANTISSA_BITS
    bins = (exponent - _BIAS - HISTOGRAM_FIRST_EXPONENT).clamp(0, HISTOGRAM_BINS - 1)
    return FeatureStatistics(
        sample_count=(maxima > 0).sum(0),
        token_count=torch.bincount(features.features, minlength=num_features),
        max_activation=maxima.amax(0),
        activation_limbs=_exact_sum(features.features, bits, exponent, num_features),
        histogram=_scatter_count(features.features * HISTOGRAM_BINS + bins, num_features, HISTOGRAM_BINS),
        samples_seen=features.num_samples,
        tokens_seen=int(counted.sum()),
    )


def _exact_sum(rows: Tensor, bits: Tensor, exponent: Tensor, num_features: int) -> Tensor:
    """Exact sums of positive float32 as integers, int64 [F, 32].

    A float32 is m * 2^(max(e, 1) - 150) with a 24-bit m. Limb l gathers exponents 8l .. 8l + 7 as
    m << (e mod 8): 31 bits each, so a limb holds 2^32 firings before an int64 could overflow.
    """
    mantissa = (bits & 0x7FFFFF) | torch.where(exponent > 0, 1 << _MANTISSA_BITS, 0)
    exponent = exponent.clamp(min=1)
    limbs = torch.zeros(num_features * _LIMBS, dtype=torch.int64, device=rows.device)
    index = rows * _LIMBS + exponent // _EXPONENTS_PER_LIMB
    limbs.index_add_(0, index, mantissa << (exponent % _EXPONENTS_PER_LIMB))
    return limbs.view(num_features, _LIMBS)


def _scatter_count(index: Tensor, rows: int, columns: int) -> Tensor:
    return torch.bincount(index, minlength=rows * columns).view(rows, columns)


def accumulate(total: FeatureStatistics, part: FeatureStatistics) -> FeatureStatistics:
    """As merging the two, but into the tensors of ``total``: needs no memory, so it cannot fail half-way."""
    for name in ("sample_count", "token_count", "activation_limbs", "histogram"):
        getattr(total, name).add_(getattr(part, name))
    torch.maximum(total.max_activation, part.max_activation, out=total.max_activation)
    return total._replace(
        samples_seen=total.samples_seen + part.samples_seen, tokens_seen=total.tokens_seen + part.tokens_seen
    )


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
