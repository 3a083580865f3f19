"""Every statistic of a feature, worked out slowly from all its firings, by the name of its column.

Imports nothing of the engine. A column that is described there and has no function here fails a test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from extraction_assets_tests.draws_oracle import populations


@dataclass(frozen=True)
class Firings:
    """All that a feature does at counted positions."""

    samples: list[list[float]]
    """Of each sample the activations at which it fires."""
    tokens_seen: int
    """Counted positions of all samples, whether it fires there or not."""

    @cached_property
    def firing(self) -> list[list[float]]:
        """Those of the samples in which it fires."""
        return list(filter(None, self.samples))

    @cached_property
    def all(self) -> list[float]:
        return list(chain.from_iterable(self.firing))


BINS, FIRST_EXPONENT = 40, -20


def histogram(values: list[float]) -> list[int]:
    """Values by the power of two below them: 2^e <= value < 2^(e + 1), the first and last bin open."""
    exponents = np.frexp(np.array(values, dtype=np.float64))[1] - 1
    counts: list[int] = np.bincount(np.clip(exponents - FIRST_EXPONENT, 0, BINS - 1), minlength=BINS).tolist()
    return counts


def mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def standard_deviation(values: list[float]) -> float | None:
    """Of all values, not of a sample. ``fsum`` rounds once, so that equal values give 0."""
    centre = mean(values)
    if centre is None:
        return None
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / len(values))


ORACLE: dict[str, Callable[[Firings], Any]] = {
    "activation_count": lambda firings: len(firings.firing),
    "activation_frequency": lambda firings: len(firings.firing) / max(1, len(firings.samples)),
    "token_count": lambda firings: len(firings.all),
    "token_frequency": lambda firings: len(firings.all) / max(1, firings.tokens_seen),
    "max_activation": lambda firings: max(firings.all, default=None),
    "mean_activation": lambda firings: mean(firings.all),
    "histogram": lambda firings: histogram(firings.all),
    "std_activation": lambda firings: standard_deviation(firings.all),
    "interval_samples": lambda firings: populations([max(sample) for sample in firings.firing]),
}

RELATIVE = 1e-13
"""Tolerance of what is not an integer or a maximum."""


def differences(row: dict[str, Any], firings: Firings) -> list[str]:
    """Which columns of a feature's row are not what they must be."""
    return [
        f"{name}: {row[name]}, not {right}" for name, right in expected(firings).items() if not _same(row[name], right)
    ]


def expected(firings: Firings) -> dict[str, Any]:
    """Column -> its value."""
    return {name: work_out(firings) for name, work_out in ORACLE.items()}


def _same(found: Any, right: Any) -> bool:
    if isinstance(right, float) and isinstance(found, float):
        return math.isclose(found, right, rel_tol=RELATIVE)
    return bool(found == right) and type(found) is type(right)
