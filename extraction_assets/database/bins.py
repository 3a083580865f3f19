"""Where a feature stands in the plot of density against maximum: logarithmic bins with fixed edges, the same for all
results, so that the plot is a GROUP BY over an index and a region of it is a condition on two columns."""

from bisect import bisect_right

DENSITY_EDGES = tuple(10.0 ** (step / 10) for step in range(-80, 0))
"""Of ``token_frequency``: ten bins a power of ten, from 1e-8."""

MAX_EDGES = tuple(2.0 ** (step / 8) for step in range(-160, 161))
"""Of ``max_activation``: eight bins a power of two, from 2^-20 to 2^20."""


def bin_of(value: float | None, edges: tuple[float, ...]) -> int | None:
    """Number of the bin of a value: how many edges are not above it; None for None.

    Bin b holds values from ``edges[b - 1]`` to just below ``edges[b]``; the first and the last are open.
    """
    return None if value is None else bisect_right(edges, value)


def range_of(number: int, edges: tuple[float, ...]) -> tuple[float, float]:
    """Where a bin begins and ends; 0 and infinity at the open ends."""
    return ((0.0, *edges)[number], (*edges, float("inf"))[number])
