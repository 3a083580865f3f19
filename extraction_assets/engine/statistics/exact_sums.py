"""Exact sums of activations and of their squares: whole numbers in limbs, which merge by addition in any order."""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

LIMBS = 32
"""Of a sum of activations: limb l counts in 2^(8l - 150)."""

EXPONENTS_PER_LIMB = 8
"""256 exponents of a float32 / 32 limbs."""

SQUARE_LIMBS = 67
"""Of a sum of squares, each up to 48 bits at one of 508 exponents: limb l counts in 2^(8l - 300)."""


def sum_of_limbs(limbs: "Tensor") -> np.ndarray:
    """The sums that ``LIMBS`` [F, 32] hold: float64 [F], rounded once per limb (relative error < 1e-14)."""
    scale = np.exp2(np.arange(LIMBS, dtype=np.float64) * EXPONENTS_PER_LIMB - 150)
    total: np.ndarray = (limbs.cpu().numpy().astype(np.float64) * scale).sum(axis=1)
    return total


def exact_sums(offsets: np.ndarray, limbs: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Float64 [Q]: sums of which each is given by some limbs, rounded once.

    Sum q is that of ``sums[i] * 2^(8 * limbs[i] - 150)`` for i from ``offsets[q]`` to ``offsets[q + 1]``, at least one
    of them; no limb twice, and all ``sums`` >= 0.
    """
    starts, count = offsets[:-1], np.diff(offsets)
    parts = np.ldexp(sums.astype(np.float64), limbs * EXPONENTS_PER_LIMB - 150)
    total: np.ndarray = parts[starts]
    two = np.flatnonzero(count == 2)
    total[two] += parts[starts[two] + 1]
    exact = np.logical_and.reduceat(sums < 1 << 53, starts) if len(starts) else count > 0
    for place in np.flatnonzero((count > 2) | ~exact).tolist():  # more than one rounding: in whole numbers
        span = slice(offsets[place], offsets[place + 1])
        pairs = zip(sums[span].tolist(), limbs[span].tolist(), strict=True)
        total[place] = math.ldexp(sum(one << EXPONENTS_PER_LIMB * limb for one, limb in pairs), -150)
    return total


def std_of_limbs(count: "Tensor", limbs: "Tensor", square_limbs: "Tensor") -> np.ndarray:
    """Population standard deviation of ``count`` [F] values with these sums and sums of squares: float64 [F], NaN where
    there are no values.

    n * sum(x^2) - sum(x)^2 is computed in whole numbers, so nothing cancels however close the values are to their mean.
    """
    rows = zip(count.tolist(), whole_numbers(limbs), whole_numbers(square_limbs), strict=True)
    return np.array([_root(n * square - total * total, n) if n else math.nan for n, total, square in rows])


def whole_numbers(limbs: "Tensor") -> list[int]:
    """Limbs [F, L] in base 2^8, each of up to 63 bits, as one integer a feature."""
    values = limbs.cpu().numpy().astype(np.uint64)
    digits = np.zeros((len(values), values.shape[1] + 8), dtype=np.uint8)
    carry = np.zeros(len(values), dtype=np.uint64)
    for place in range(digits.shape[1]):
        carry = carry + values[:, place] if place < values.shape[1] else carry
        digits[:, place] = carry & np.uint64(0xFF)
        carry = carry >> np.uint64(8)
    return [int.from_bytes(row.tobytes(), "little") for row in digits]


def _root(square: int, count: int) -> float:
    """sqrt(square) / count, in units of 2^-150; 64 bits of the root are exact."""
    more = max(0, 64 - square.bit_length() // 2)
    return math.ldexp(math.isqrt(square << 2 * more) / (count << more), -150)
