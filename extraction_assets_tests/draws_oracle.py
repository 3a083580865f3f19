"""What must be drawn, worked out in plain Python from dense features. Imports nothing of the engine."""

import math

import numpy as np

MASK = 2**64 - 1

Draw = tuple[int, float, list[tuple[int, float]]]
"""(sample_index, max_activation, [(position, activation), strongest first])"""


def mixed(number: int) -> int:
    """The finalizer of SplitMix64."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & MASK
    return number ^ number >> 31


def key_of(seed: int, sample: int) -> int:
    return mixed((mixed(seed) + sample * 0x9E3779B97F4A7C15) & MASK)


def hash_of(seed: int, feature: int, sample: int) -> int:
    return mixed((key_of(seed, sample) + feature * 0x9E3779B97F4A7C15) & MASK) >> 33


def is_sampled(seed: int, sample: int, one_in: int) -> bool:
    return (key_of(seed, sample) >> 33) % one_in == 0


def interval(maximum: float) -> int:
    """Half octaves from 2^-20 to 2^20, the ends open."""
    exponent = math.floor(math.log2(maximum)) if maximum >= 1e-300 else -400
    exponent -= math.ldexp(1.0, exponent) > maximum
    exponent += math.ldexp(1.0, exponent + 1) <= maximum
    upper = maximum >= 1.5 * math.ldexp(1.0, exponent)
    return max(0, min(79, 2 * (exponent + 20) + upper))


def drawn(
    dense: np.ndarray,
    counted: np.ndarray,
    *,
    first_sample: int = 0,
    seed: int = 0,
    per_interval: int = 5,
    of_all: int = 10,
    features: list[int] | None = None,
) -> dict[tuple[int, int], list[Draw]]:
    """Dense float32 [n, T, F] and bool [n, T] -> the draws of each (feature, interval), in their order; interval -1 is
    all samples. ``features`` are the numbers of the columns, where these are not all."""
    found: dict[tuple[int, int], list[tuple[int, int, Draw]]] = {}
    for column in range(dense.shape[2]):
        feature = column if features is None else features[column]
        for row in range(dense.shape[0]):
            values = dense[row, :, column]
            firings = [(p, float(values[p])) for p in range(len(values)) if counted[row, p] and values[p] > 0]
            if not firings:
                continue
            firings.sort(key=lambda firing: (-firing[1], firing[0]))
            sample, maximum = first_sample + row, firings[0][1]
            entry = hash_of(seed, feature, sample), sample, (sample, maximum, firings)
            for place in (-1, interval(maximum)):
                found.setdefault((feature, place), []).append(entry)
    sizes = {key: of_all if key[1] == -1 else per_interval for key in found}
    first = {key: sorted(entries, key=lambda entry: entry[:2])[: sizes[key]] for key, entries in found.items()}
    return {key: [draw for _, _, draw in first[key]] for key in sorted(first) if first[key]}


def populations(maxima: list[float]) -> list[int]:
    """Samples by interval of their maximum."""
    counts = [0] * 80
    for maximum in maxima:
        counts[interval(maximum)] += 1
    return counts
