"""The (sample, feature) pairs in which a feature fires: what tables, draws and populations of intervals begin with."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from extraction_assets.engine.selection.intervals import FIRST_INTERVAL, INTERVALS, MANTISSA_BITS_BELOW


@dataclass(frozen=True)
class FiringPairs:
    """Pairs of some samples, ordered by (sample, feature)."""

    samples: Tensor
    """int64 [C], counted from the first one here."""
    features: Tensor
    """int64 [C]"""
    maxima: Tensor
    """float32 [C]: the feature's maximum in the sample, > 0."""

    @cached_property
    def intervals(self) -> Tensor:
        """The interval of each maximum: int64 [C]."""
        return intervals_of(self.maxima)

    def take(self, rows: Tensor) -> "FiringPairs":
        """The pairs of some rows, in the order of ``rows``."""
        return FiringPairs(self.samples[rows], self.features[rows], self.maxima[rows])


def pairs_above(maxima: Tensor, floor: Tensor | float = 0.0) -> FiringPairs:
    """The pairs with a maximum strictly above ``floor``, a number or float32 [F]; ``maxima`` float32 [n, F]
    (``sample_maxima``). One synchronisation. Peak extra memory: 1 byte a cell, and the pairs at 20 bytes each."""
    samples, features = (maxima > floor).nonzero(as_tuple=True)
    return FiringPairs(samples, features, maxima[samples, features])


def intervals_of(maxima: Tensor) -> Tensor:
    """The interval of each maximum (``selection.intervals``): float32 [C], > 0 -> int64 [C], 0 .. 79."""
    steps = maxima.contiguous().view(torch.int32) >> MANTISSA_BITS_BELOW
    return (steps - FIRST_INTERVAL).clamp_(0, INTERVALS - 1).to(torch.int64)
