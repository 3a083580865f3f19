"""Histograms as others draw them: the middle of each bar and its height."""

from extraction_assets.database.queries.directions import Logits
from extraction_assets.engine.selection.intervals import FIRST_EXPONENT


def octaves(histogram: list[int]) -> tuple[list[float], list[int]]:
    """The centres of the octaves in which a feature fires, from the weakest to the strongest, and firing tokens."""
    filled = [number for number, count in enumerate(histogram) if count]
    if not filled:
        return [], []
    bins = range(filled[0], filled[-1] + 1)
    return [0.75 * 2.0 ** (FIRST_EXPONENT + 1 + number) for number in bins], [histogram[number] for number in bins]


def centres(logits: Logits) -> list[float]:
    """The middle of each bin of a histogram of logits."""
    width = (logits.maximum - logits.minimum) / len(logits.histogram)
    return [logits.minimum + (number + 0.5) * width for number in range(len(logits.histogram))]
