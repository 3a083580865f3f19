"""What the engine must find, by brute force in NumPy and plain Python. Nothing here calls the engine."""

import numpy as np

from extraction_assets_tests.statistics_oracle import Firings

Example = tuple[float, int, list[tuple[int, float]]]
"""(max_activation, sample_index, [(position, activation), strongest first])"""


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


def firings(dense: np.ndarray, counted: np.ndarray) -> list[Firings]:
    """Of every feature its firings, of which ``statistics_oracle`` knows all statistics."""
    seen = int(counted.sum())
    return [
        Firings([[value for _, value in _firings(dense, counted, row, feature)] for row in range(dense.shape[0])], seen)
        for feature in range(dense.shape[2])
    ]
