"""Draws by the sequential loop, in plain Python: slow, obvious, and the oracle of the tests."""

import math

import numpy as np
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


class DrawsToCompare:
    """A chunk's draws, compared with the sequential loop one (sample, feature) pair at a time."""

    def __init__(self, draws: Draws, rules: DrawRules) -> None:
        self._draws, self._rules = draws, rules
        self._legacy = LegacyDraws(rules)
        self._neurons, self._intervals, self._samples = (column.numpy() for column in draws[:3])

    def agree(self, feature: int, sample: int, firings: Firings) -> bool:
        """Whether the draws of a feature are consistent with ``sample`` having these firings: it is drawn with them,
        from its interval and from all samples, or so many others come before it as are drawn."""
        first, last = (int(row) for row in np.searchsorted(self._neurons, [feature, feature + 1]))
        rows = np.arange(first, last)
        places = {OF_ALL, interval_of(firings[0][1])} if firings else set()
        drawn_from = set(self._intervals[rows[self._samples[rows] == sample]].tolist())
        return drawn_from <= places and all(
            self._agree_at(rows[self._intervals[rows] == place], feature, sample, firings, place) for place in places
        )

    def _agree_at(self, rows: np.ndarray, feature: int, sample: int, firings: Firings, interval: int) -> bool:
        """``rows`` are the draws of the feature from one interval."""
        size = self._legacy.size_of(interval)
        found = rows[self._samples[rows] == sample].tolist()
        if found:
            return len(rows) <= size and [self._drawn(row) for row in found] == [(firings[0][1], firings)]
        if size == 0:
            return len(rows) == 0
        return len(rows) == size and self._place(feature, int(self._samples[rows[-1]])) < self._place(feature, sample)

    def _place(self, feature: int, sample: int) -> tuple[int, int]:
        return pair_hash(sample_keys(self._rules.draw_seed, sample), feature), sample

    def _drawn(self, row: int) -> tuple[float, Firings]:
        span = slice(int(self._draws.firing_offsets[row]), int(self._draws.firing_offsets[row + 1]))
        positions, activations = self._draws.positions[span].tolist(), self._draws.activations[span].tolist()
        return float(self._draws.max_activation[row]), list(zip(positions, activations, strict=True))
