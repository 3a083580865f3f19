"""Histograms as numbers of an SVG: places and sizes stand in attributes, which the policy of the pages allows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from extraction_assets.engine.statistics.registry import HISTOGRAM_EDGES

WIDTH, HEIGHT, BASE = 300.0, 84.0, 70.0
"""Of a histogram's picture, and where its bars stand."""
_TOP, _GAP, _MOST_LABELS = 4.0, 1.0, 8


class Bin(NamedTuple):
    """How many tokens have an activation, or a logit, in ``[low, high)``."""

    low: float
    high: float | None
    """None: the bin has no upper end."""
    number: int


class Bar(NamedTuple):
    """A bin as a rectangle, in units of the picture."""

    x: float
    y: float
    width: float
    height: float
    title: str
    label: str
    """Its lower end, where there is room."""
    middle: float


class Histogram(NamedTuple):
    """Neighbouring bins, the first and the last not empty."""

    bins: tuple[Bin, ...]
    unit: str = "tokens"

    def bars(self) -> list[Bar]:
        """The picture: every bin as wide, the highest as high as there is room."""
        if not self.bins:
            return []
        step, most = WIDTH / len(self.bins), max(one.number for one in self.bins)
        every = math.ceil(len(self.bins) / _MOST_LABELS)
        return [self._bar(at, one, step, most, at % every == 0) for at, one in enumerate(self.bins)]

    def _bar(self, at: int, one: Bin, step: float, most: int, labelled: bool) -> Bar:
        height = (BASE - _TOP) * one.number / most if most else 0.0
        if one.number:
            height = max(1.0, height)  # one token among a million is seen
        return Bar(
            x=round(at * step + _GAP, 1),
            y=round(BASE - height, 1),
            width=round(step - 2 * _GAP if step > 4 * _GAP else step, 1),
            height=round(height, 1),
            title=f"{span(one.low, one.high)}: {one.number:,} {self.unit}",
            label=short(one.low) if labelled else "",
            middle=round((at + 0.5) * step, 1),
        )

    def said(self) -> str:
        """The histogram in words, for those who do not see it."""
        return "; ".join(bar.title for bar in self.bars()) or f"no {self.unit}"


def activation_histogram(counts: Sequence[int]) -> Histogram:
    """The bins of the statistic ``histogram``, by powers of two, without the empty ones at its ends."""
    return activation_histograms(counts)[0]


def activation_histograms(*counts: Sequence[int]) -> list[Histogram]:
    """As ``activation_histogram``, of several features over one range, to stand under each other."""
    filled = [at for one in counts for at, count in enumerate(one) if count]
    shown = slice(min(filled), max(filled) + 1) if filled else slice(0)
    bins = [tuple(map(Bin, HISTOGRAM_EDGES[:-1], [*HISTOGRAM_EDGES[1:-1], None], one)) for one in counts]
    return [Histogram(one[shown]) for one in bins]


def even_histogram(counts: Sequence[int], low: float, high: float, unit: str) -> Histogram:
    """Bins of equal width from ``low`` to ``high``."""
    step = (high - low) / max(1, len(counts))
    bins = tuple(Bin(low + at * step, low + (at + 1) * step, count) for at, count in enumerate(counts))
    return Histogram(bins, unit)


def span(low: float, high: float | None) -> str:
    """A range in words."""
    return (
        f"{short(low)} on" if high is None else f"below {short(high)}" if low == 0 else f"{short(low)} to {short(high)}"
    )


def short(value: float) -> str:
    """The end of a bin, in as few characters as its size asks for."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
