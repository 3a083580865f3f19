"""What the engine must find, by brute force in NumPy and plain Python. Nothing here calls the engine."""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import numpy as np

Example = tuple[float, int, list[tuple[int, float]]]
"""(max_activation, sample_index, [(position, activation), strongest first])"""

BINS, FIRST_EXPONENT = 40, -20


def top_k(
    dense: np.ndarray, counted: np.ndarray, *, first_sample: int = 0, k: int = 100, min_activation: float = 0.0
) -> dict[int, list[Example]]:
    """Dense float32 [n, T, F] and bool [n, T] -> each feature's examples, strongest first; no dead features."""
    found: dict[int, list[Example]] = {}
    for feature in range(dense.shape[2]):
        examples = []
        for row in range(dense.shape[0]):
            firings = sorted(_firings(dense, counted, row, feature), key=lambda firing: (-firing[1], firing[0]))
            if firings and firings[0][1] > float(np.float32(min_activation)):
                examples.append((firings[0][1], first_sample + row, firings))
        examples.sort(key=lambda example: (-example[0], example[1]))
        if examples:
            found[feature] = examples[:k]
    return found


def _firings(dense: np.ndarray, counted: np.ndarray, row: int, feature: int) -> list[tuple[int, float]]:
    column = dense[row, :, feature]
    return [(p, float(column[p])) for p in range(len(column)) if counted[row, p] and column[p] > 0]


class Statistics(NamedTuple):
    sample_count: list[int]
    token_count: list[int]
    max_activation: list[float]
    exact_sum: list[Fraction]
    histogram: list[list[int]]


def statistics(dense: np.ndarray, counted: np.ndarray) -> Statistics:
    """Statistics of every feature over all counted firings, the sum as an exact fraction."""
    columns: list[list[list[float]]] = [
        [[value for _, value in _firings(dense, counted, row, feature)] for row in range(dense.shape[0])]
        for feature in range(dense.shape[2])
    ]
    flat = [[value for sample in samples for value in sample] for samples in columns]
    return Statistics(
        [sum(bool(sample) for sample in samples) for samples in columns],
        [len(values) for values in flat],
        [max(values, default=0.0) for values in flat],
        [sum(map(Fraction, values), Fraction(0)) for values in flat],
        [histogram(values) for values in flat],
    )


def histogram(values: Iterable[float]) -> list[int]:
    """Values by the power of two below them: 2^e <= value < 2^(e + 1), the first and last bin open."""
    counts = [0] * BINS
    for value in values:
        exponent = math.frexp(value)[1] - 1
        counts[min(max(exponent - FIRST_EXPONENT, 0), BINS - 1)] += 1
    return counts
