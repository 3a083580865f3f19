"""Triton kernels for CUDA: statistics are counted in place, in two kernels instead of fifty.

The ``additions`` in ``registry`` are their twins. Whole numbers and maxima alone: scheduling changes no bit.
Imported only where there is a GPU.
"""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

from extraction_assets.engine.selection.intervals import (
    FIRST_EXPONENT,
    FIRST_INTERVAL,
    HISTOGRAM_BINS,
    INTERVALS,
    MANTISSA_BITS_BELOW,
)
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets.engine.statistics.exact_sums import EXPONENTS_PER_LIMB, LIMBS, SQUARE_LIMBS

OF_FIRINGS = ("activation_limbs", "square_limbs", "histogram")
OF_SAMPLES = ("sample_count", "max_activation")
OF_INTERVALS = "interval_samples"
"""The statistics that are counted here: those with ``Statistic.has_kernel``."""

_BLOCK = 1024
_PAIRS = 2048
_WARPS = 4


def count(features: SparseFeatures, maxima: Tensor, totals: Mapping[str, Tensor]) -> None:
    """Adds some samples to ``totals``, statistic -> its numbers, of which interval_samples may be left out.

    ``features`` holds counted positions only, ``maxima`` float32 [F, n] is ``kernels.pair_maxima(features)``. No
    synchronisation, and no memory: it cannot fail half-way.
    """
    total, (num_features, num_samples) = len(features.values), maxima.shape
    if not total:
        return
    _count_firings[(triton.cdiv(total, _BLOCK),)](
        *(features.features, features.values, *(totals[name] for name in OF_FIRINGS), total),
        BLOCK=_BLOCK,
        num_warps=_WARPS,
    )
    samples_at_once = min(triton.next_power_of_2(num_samples), 256)
    features_at_once = _PAIRS // samples_at_once
    bits, strongest = (floats.view(torch.int32) for floats in (maxima, totals["max_activation"]))
    by_interval = totals.get(OF_INTERVALS)
    _count_samples[(triton.cdiv(num_features, features_at_once),)](
        *(bits, totals["sample_count"], strongest, bits if by_interval is None else by_interval),
        *(num_features, num_samples),
        BY_INTERVAL=by_interval is not None,
        FEATURES=features_at_once,
        SAMPLES=samples_at_once,
        num_warps=_WARPS,
    )


_MANTISSA_BITS = tl.constexpr(23)
_MANTISSA = tl.constexpr((1 << 23) - 1)
_FIRST_EXPONENT = tl.constexpr(127 + FIRST_EXPONENT)
_BINS, _LIMBS, _SQUARE_LIMBS = tl.constexpr(HISTOGRAM_BINS), tl.constexpr(LIMBS), tl.constexpr(SQUARE_LIMBS)
_PER_LIMB = tl.constexpr(EXPONENTS_PER_LIMB)
_HALF = tl.constexpr(0xFFFFFF)
_INTERVALS, _FIRST_INTERVAL = tl.constexpr(INTERVALS), tl.constexpr(FIRST_INTERVAL)
_BELOW = tl.constexpr(MANTISSA_BITS_BELOW)


@triton.jit(do_not_specialize=["total"])
def _count_firings(  # type: ignore[no-untyped-def]
    features, values, limbs, square_limbs, histogram, total, BLOCK: tl.constexpr
):
    """A value is mantissa * 2^(exponent - 150); sums go to the limbs that ``registry`` explains."""
    entry = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < total
    feature = tl.load(features + entry, mask=inside, other=0)
    bits = tl.load(values + entry, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    stored = bits >> _MANTISSA_BITS
    exponent = tl.maximum(stored, 1)
    mantissa = ((bits & _MANTISSA) + tl.where(stored > 0, _MANTISSA + 1, 0)).to(tl.int64)
    octave = tl.minimum(tl.maximum(exponent - _FIRST_EXPONENT, 0), _BINS - 1)
    tl.atomic_add(histogram + feature * _BINS + octave, mantissa * 0 + 1, mask=inside, sem="relaxed")
    amount = mantissa << (exponent % _PER_LIMB).to(tl.int64)
    tl.atomic_add(limbs + feature * _LIMBS + exponent // _PER_LIMB, amount, mask=inside, sem="relaxed")
    square, doubled = mantissa * mantissa, exponent * 2
    place = square_limbs + feature * _SQUARE_LIMBS + (doubled >> 3)
    shift = (doubled & 7).to(tl.int64)
    tl.atomic_add(place, (square & _HALF) << shift, mask=inside, sem="relaxed")
    tl.atomic_add(place + 3, (square >> 24) << shift, mask=inside, sem="relaxed")


@triton.jit(do_not_specialize=["num_features", "num_samples"])
def _count_samples(  # type: ignore[no-untyped-def]
    maxima,
    sample_count,
    max_activation,
    interval_samples,
    num_features,
    num_samples,
    BY_INTERVAL: tl.constexpr,
    FEATURES: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """One program has some features in all samples to itself."""
    feature = tl.program_id(0).to(tl.int64) * FEATURES + tl.arange(0, FEATURES)
    known = feature < num_features
    count = tl.zeros([FEATURES], tl.int64)
    strongest = tl.zeros([FEATURES], tl.int32)
    for first in range(0, num_samples, SAMPLES):
        sample = first + tl.arange(0, SAMPLES)
        inside = known[:, None] & (sample < num_samples)[None, :]
        bits = tl.load(maxima + feature[:, None] * num_samples + sample[None, :], mask=inside, other=0)
        fires = bits > 0
        count += tl.sum(fires.to(tl.int32), axis=1).to(tl.int64)
        strongest = tl.maximum(strongest, tl.max(bits, axis=1))
        if BY_INTERVAL:
            interval = tl.minimum(tl.maximum((bits >> _BELOW) - _FIRST_INTERVAL, 0), _INTERVALS - 1)
            place = interval_samples + feature[:, None] * _INTERVALS + interval
            tl.atomic_add(place, fires.to(tl.int64), mask=fires, sem="relaxed")
    tl.store(sample_count + feature, tl.load(sample_count + feature, mask=known, other=0) + count, mask=known)
    before = tl.load(max_activation + feature, mask=known, other=0)
    tl.store(max_activation + feature, tl.maximum(before, strongest), mask=known)
