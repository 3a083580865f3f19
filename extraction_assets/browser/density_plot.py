"""Features by density and maximum, from logarithmic bins: cells of a picture, darker for more features."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from extraction_assets.database.bins import DENSITY_EDGES, MAX_EDGES, range_of

WIDTH, HEIGHT = 640, 240
_LEFT, _BOTTOM = 30, 16
_PER_POWER_OF_TEN = 10
_PER_POWER_OF_TWO = 8
_PALEST = 0.15
_MOST_TICKS = 9


class Cell(NamedTuple):
    """The features of one bin."""

    x: float
    y: float
    width: float
    height: float
    opacity: float
    title: str


class Tick(NamedTuple):
    """A line with its label."""

    at: float
    label: str


class DensityPlot(NamedTuple):
    """A picture of ``width`` by ``height``."""

    width: int
    height: int
    cells: list[Cell]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def density_plot(bins: Sequence[tuple[int, int, int]]) -> DensityPlot:
    """The picture of (density bin, maximum bin, features) of ``database.bins``, cut to the bins that hold any."""
    if not bins:
        return DensityPlot(WIDTH, HEIGHT, [], [], [])
    left, right = _ends([density for density, _, _ in bins])
    low, high = _ends([maximum for _, maximum, _ in bins])
    wide, tall = (WIDTH - _LEFT) / (right - left), (HEIGHT - _BOTTOM) / (high - low)
    most = max(features for _, _, features in bins)
    cells = [
        Cell(
            round(_LEFT + (density - left) * wide, 1),
            round((high - 1 - maximum) * tall, 1),
            round(wide, 1),
            round(tall, 1),
            round(_opacity(features, most), 2),
            _title(density, maximum, features),
        )
        for density, maximum, features in bins
    ]
    x_ticks = [
        Tick(round(_LEFT + (edge + 1 - left) * wide, 1), f"{100 * DENSITY_EDGES[edge]:g} %")
        for edge in _edges(left, right, _PER_POWER_OF_TEN, len(DENSITY_EDGES))
    ]
    y_ticks = [
        Tick(round((high - 1 - edge) * tall, 1), f"{MAX_EDGES[edge]:g}")
        for edge in _edges(low, high, _PER_POWER_OF_TWO, len(MAX_EDGES))
    ]
    return DensityPlot(WIDTH, HEIGHT, cells, x_ticks, y_ticks)


def _ends(numbers: list[int]) -> tuple[int, int]:
    return min(numbers), max(numbers) + 1


def _edges(first: int, stop: int, step: int, count: int) -> list[int]:
    """Edges at whole powers inside bins ``first`` to ``stop - 1``: bin b begins at edge b - 1. Few enough to read."""
    found = [edge for edge in range(0, count, step) if first <= edge + 1 < stop]
    return found[:: max(1, -(-len(found) // _MOST_TICKS))]


def _opacity(features: int, most: int) -> float:
    """From palest for one feature to 1 for the fullest bin, by the logarithm."""
    return _PALEST + (1 - _PALEST) * math.log1p(features) / math.log1p(most)


def _title(density: int, maximum: int, features: int) -> str:
    from_density, to_density = (100 * edge for edge in range_of(density, DENSITY_EDGES))
    from_maximum, to_maximum = range_of(maximum, MAX_EDGES)
    count = f"{features:,} feature{'' if features == 1 else 's'}"
    return f"{count}: density {from_density:.2g} to {to_density:.2g} %, maximum {from_maximum:.3g} to {to_maximum:.3g}"
