"""Draws by the sequential loop, in plain Python: slow, obvious, and the oracle of the tests."""

import math

import torch

from extraction_assets.engine.selection.hashing import pair_hash, sample_keys
from extraction_assets.engine.selection.intervals import FIRST_EXPONENT, INTERVALS, OF_ALL
from extraction_assets.engine.selection.merge import Firings
from extraction_assets.engine.shapes import DrawRules, Draws

Drawn = tuple[int, int, Firings]
"""(hash, sample_index, firings): the lowest are kept."""


def interval_of(maximum: float) -> int:
    """The half octave of a sample's maximum, from its logarithm instead of its bits."""
    mantissa, exponent = math.frexp(maximum)  # maximum = mantissa * 2^exponent, 0.5 <= mantissa < 1
    half = 1 if mantissa >= 0.75 else 0
    return min(max(2 * (exponent - 1 - FIRST_EXPONENT) + half, 0), INTERVALS - 1)


class LegacyDraws:
    """A sorted list for each feature and interval, cut to the number that is kept."""

    def __init__(self, rules: DrawRules) -> None:
        self.rules = rules
        self.drawn: dict[tuple[int, int], list[Drawn]] = {}

    def push(self, feature: int, sample_index: int, firings: Firings) -> None:
        """One sample in which a feature fires, with its firings, strongest first."""
        entry = pair_hash(sample_keys(self.rules.draw_seed, sample_index), feature), sample_index, firings
        for interval in (OF_ALL, interval_of(firings[0][1])):
            drawn = sorted([*self.drawn.get((feature, interval), []), entry], key=lambda one: one[:2])
            self.drawn[feature, interval] = drawn[: self.size_of(interval)]

    def size_of(self, interval: int) -> int:
        """How many examples are drawn from an interval, or from all samples."""
        return self.rules.random_examples if interval == OF_ALL else self.rules.interval_examples

    def build_heaps(self) -> Draws:
        """The draws, on the CPU."""
        rows = [(feature, interval, *one) for (feature, interval), drawn in self.drawn.items() for one in drawn]
        rows.sort(key=lambda row: row[:4])
        firings = [firing for row in rows for firing in row[4]]
        return Draws(
            torch.tensor([feature for feature, *_ in rows], dtype=torch.int64),
            torch.tensor([interval for _, interval, *_ in rows], dtype=torch.int64),
            torch.tensor([sample for _, _, _, sample, _ in rows], dtype=torch.int64),
            torch.tensor([found[0][1] for *_, found in rows], dtype=torch.float32),
            torch.tensor([0, *(len(found) for *_, found in rows)], dtype=torch.int64).cumsum(0),
            torch.tensor([position for position, _ in firings], dtype=torch.int64),
            torch.tensor([activation for _, activation in firings], dtype=torch.float32),
        )
