"""The intervals of a feature's activations that hold samples, with their population and what was drawn from each."""

import math
from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from extraction_assets.browser.shown.charts import span
from extraction_assets.engine.selection.intervals import OF_ALL, interval_edges

Drawn = TypeVar("Drawn")
Shown = TypeVar("Shown")


class Interval(NamedTuple, Generic[Drawn]):
    """One interval of a feature."""

    interval: int
    low: float
    high: float | None
    """None: it has no upper end."""
    samples: int | None
    """Its population: samples whose maximum lies in it; None if that was not counted."""
    share: float | None
    """The population as a fraction of the samples in which the feature fires."""
    drawn: int
    """How many examples were drawn from it."""
    examples: tuple[Drawn, ...]
    """Those that are shown of them."""

    def showing(self, examples: tuple[Shown, ...]) -> "Interval[Shown]":
        """The same interval with these examples."""
        return Interval(self.interval, self.low, self.high, self.samples, self.share, self.drawn, examples)

    @property
    def name(self) -> str:
        """Its range in words."""
        return span(self.low, self.high)


def feature_intervals(
    population: Sequence[int] | None, draws: Iterable[tuple[int, Drawn]]
) -> tuple[Interval[Drawn], ...]:
    """The intervals of a feature that hold samples, the strongest first.

    ``population`` are the samples of each of ``INTERVALS``, None if they were not counted; ``draws`` come with the
    interval that each is from.
    """
    examples: dict[int, list[Drawn]] = {}
    for interval, one in draws:
        if interval != OF_ALL:
            examples.setdefault(interval, []).append(one)
    counted = {at: count for at, count in enumerate(population or ()) if count}
    total = sum(counted.values())
    return tuple(
        Interval(
            at,
            *_bounds(at),
            samples=counted.get(at, 0) if population is not None else None,
            share=counted.get(at, 0) / total if total else None,
            drawn=len(examples.get(at, ())),
            examples=tuple(examples.get(at, ())),
        )
        for at in sorted(counted.keys() | examples.keys(), reverse=True)
    )


def _bounds(interval: int) -> tuple[float, float | None]:
    low, high = interval_edges(interval)
    return low, None if math.isinf(high) else high
