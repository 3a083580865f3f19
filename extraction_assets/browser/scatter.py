"""The plot of density against maximum: how many features lie in each cell, as the paths of an SVG.

One path a shade holds all cells of it: three thousand cells of their own would be most of the page.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from extraction_assets.database.bins import DENSITY_EDGES, MAX_EDGES
from extraction_assets.database.queries.feature_counts import Cell
from extraction_assets.database.queries.feature_filter import Range

WIDTH, HEIGHT = 640.0, 166.0
"""Of the plot, without its labels, in the SVG's units."""
SHADES = 8
"""Shades of a cell: each stands for more features by a constant factor."""
_FEWEST = 10
"""Bins that an axis has at least, so that a few features do not fill the plot."""


class Tick(NamedTuple):
    """A line of the grid with its label."""

    at: float
    text: str


class Shade(NamedTuple):
    """The cells that hold about as many features."""

    shade: int
    """Of the style sheet, 1 to 20."""
    path: str
    """In cells, from the upper left one."""


class Box(NamedTuple):
    """A region in the SVG's units."""

    x: float
    y: float
    width: float
    height: float


class Scatter(NamedTuple):
    """The plot. Densities go to the right, maxima up, both on logarithmic axes."""

    shades: list[Shade]
    cell_width: float
    cell_height: float
    across: list[Tick]
    up: list[Tick]
    chosen: Box | None
    """The region that the list is filtered to."""
    first_density: float
    last_density: float
    first_maximum: float
    last_maximum: float
    """What the edges of the plot stand for."""


def scatter(cells: Sequence[Cell], density: Range, maximum: Range) -> Scatter | None:
    """The plot of the features that fire; None if none does."""
    known = [(x, y, count) for x, y, count, *_ in cells if x is not None and y is not None]
    if not known:
        return None
    left, right = _axis([x for x, _, _ in known], len(DENSITY_EDGES))
    bottom, top = _axis([y for _, y, _ in known], len(MAX_EDGES))
    largest = max(count for *_, count in known)
    shade_of = {count: _shade(count, largest) for count in {count for *_, count in known}}
    paths: dict[int, list[str]] = {}
    for x, y, count in known:
        paths.setdefault(shade_of[count], []).append(f"M{x - left} {top - 1 - y}h1v1h-1z")
    first_density, last_density = _begin(left, DENSITY_EDGES), _begin(right, DENSITY_EDGES)
    first_maximum, last_maximum = _begin(bottom, MAX_EDGES), _begin(top, MAX_EDGES)
    return Scatter(
        shades=[Shade(shade, "".join(path)) for shade, path in sorted(paths.items())],
        cell_width=round(WIDTH / (right - left), 4),
        cell_height=round(HEIGHT / (top - bottom), 4),
        across=_powers(10.0, first_density, last_density, WIDTH, percent=True),
        up=[Tick(HEIGHT - at, text) for at, text in _powers(4.0, first_maximum, last_maximum, HEIGHT, percent=False)],
        chosen=_box(density, maximum, (first_density, last_density), (first_maximum, last_maximum)),
        first_density=first_density,
        last_density=last_density,
        first_maximum=first_maximum,
        last_maximum=last_maximum,
    )


def _axis(bins: list[int], most: int) -> tuple[int, int]:
    """First bin of an axis, and one past its last."""
    first, stop = min(bins), max(bins) + 1
    missing = max(0, _FEWEST - (stop - first))
    return max(0, first - (missing + 1) // 2), min(most + 1, stop + missing // 2)


def _begin(number: int, edges: tuple[float, ...]) -> float:
    """Where a bin begins on the axis; the open one before the first edge is drawn as wide as the others."""
    step = edges[1] / edges[0]
    return edges[0] / step if number == 0 else edges[number - 1] if number <= len(edges) else edges[-1] * step


def _shade(count: int, largest: int) -> int:
    """A shade of the style sheet, from the logarithm of a count."""
    share = math.log1p(count) / math.log1p(largest)
    return 4 + 2 * max(1, math.ceil(SHADES * share))  # of 20: the palest can be seen too


def _powers(base: float, first: float, last: float, length: float, *, percent: bool) -> list[Tick]:
    exponents = range(math.ceil(math.log(first, base) - 1e-9), math.floor(math.log(last, base) + 1e-9) + 1)
    return [
        Tick(_place(base**exponent, first, last, length), _tick_text(base**exponent, percent)) for exponent in exponents
    ]


def _tick_text(value: float, percent: bool) -> str:
    text = f"{100 * value if percent else value:,.10f}".rstrip("0").rstrip(".")
    return f"{text} %" if percent else text


def _place(value: float, first: float, last: float, length: float) -> float:
    share = math.log(value / first) / math.log(last / first)
    return round(length * min(1.0, max(0.0, share)), 1)


def _box(density: Range, maximum: Range, across: tuple[float, float], up: tuple[float, float]) -> Box | None:
    if density.is_open and maximum.is_open:
        return None
    left, right = (_bound(density, across, side, WIDTH) for side in (0, 1))
    bottom, top = (_bound(maximum, up, side, HEIGHT) for side in (0, 1))
    return Box(left, HEIGHT - top, max(0.0, round(right - left, 1)), max(0.0, round(top - bottom, 1)))


def _bound(limits: Range, axis: tuple[float, float], side: int, length: float) -> float:
    value = limits[side]
    if value is None:
        return (0.0, length)[side]
    return _place(value, *axis, length) if value > 0 else 0.0
