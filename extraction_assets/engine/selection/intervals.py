"""Intervals of activations, fixed before any pass: octaves of the histogram, and half octaves of a sample's maximum,
read from the bits of the float32.

Loads no torch: pages and tables read it too.
"""

import math

HISTOGRAM_BINS = 40
FIRST_EXPONENT = -20
"""The histogram of activations has a bin for each power of two from 2^-20 on, the ends open."""

INTERVALS = 2 * HISTOGRAM_BINS
"""Two for each power of two of the histogram: [2^e, 1.5 * 2^e) and [1.5 * 2^e, 2^(e + 1)), for e from -20 to 19."""

OF_ALL = -1
"""In place of an interval: all samples in which the feature fires."""

MANTISSA_BITS_BELOW = 22
"""Bits of a float32 below its exponent and the highest bit of its mantissa."""

FIRST_INTERVAL = 2 * (127 + FIRST_EXPONENT)
"""``bits >> 22`` of 2^-20, with which interval 0 begins; smaller values fall into it too, and those from 2^20 on into
the last one: the ends are open."""


def interval_edges(interval: int) -> tuple[float, float]:
    """[from, to) of an interval; the first begins with 0, the last ends with infinity."""
    return _edge(interval), _edge(interval + 1)


def interval_of(maximum: float) -> int:
    """The interval that a positive maximum lies in."""
    mantissa, exponent = math.frexp(maximum)  # 0.5 <= mantissa < 1
    number = 2 * (exponent - 1 - FIRST_EXPONENT) + (mantissa >= 0.75)
    return min(max(number, 0), INTERVALS - 1)


def _edge(number: int) -> float:
    if number <= 0:
        return 0.0
    if number >= INTERVALS:
        return float("inf")
    octave: float = 2.0 ** (FIRST_EXPONENT + number // 2)
    return octave * (1.5 if number % 2 else 1.0)
