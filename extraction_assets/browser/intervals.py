"""Intervals of a feature's activations: half octaves of a sample's maximum, with their population.

Interval i of 0 to 79 holds maxima from 2^e or 1.5 · 2^e on, e being i // 2 - 20; the first and the last are open.
"""

from collections.abc import Sequence
from typing import NamedTuple

from extraction_assets.browser.charts import span

INTERVALS = 80
RANDOM = -1
"""What draws from all samples in which a feature fires have in the place of an interval."""

_FIRST_EXPONENT = -20


class Interval(NamedTuple):
    """One interval of a feature."""

    interval: int
    low: float
    high: float | None
    """None: it has no upper end."""
    samples: int | None
    """Its population: samples whose maximum lies in it; None if that was not counted."""
    share: float | None
    """The population as a fraction of the samples in which the feature fires."""
    drawn: tuple[int, ...]
    """Which of the feature's draws are from it."""

    @property
    def name(self) -> str:
        """Its range in words."""
        return span(self.low, self.high)


def bounds(interval: int) -> tuple[float, float | None]:
    """Lower and upper end of an interval."""
    return (0.0 if interval == 0 else _lower(interval)), (None if interval == INTERVALS - 1 else _lower(interval + 1))


def _lower(interval: int) -> float:
    return float(2.0 ** (interval // 2 + _FIRST_EXPONENT) * (1.5 if interval % 2 else 1.0))


def feature_intervals(population: Sequence[int] | None, drawn_from: Sequence[int]) -> list[Interval]:
    """The intervals of a feature that hold samples, the strongest first.

    ``population`` are the samples of each of the 80, None if they were not counted; ``drawn_from`` is the interval of
    each draw.
    """
    places: dict[int, list[int]] = {}
    for place, interval in enumerate(drawn_from):
        if interval != RANDOM:
            places.setdefault(interval, []).append(place)
    counted = {at: count for at, count in enumerate(population or ()) if count}
    total = sum(counted.values())
    return [
        Interval(
            at,
            *bounds(at),
            samples=counted.get(at, 0) if population is not None else None,
            share=counted.get(at, 0) / total if total else None,
            drawn=tuple(places.get(at, ())),
        )
        for at in sorted(counted.keys() | places.keys(), reverse=True)
    ]
