"""How much two features have in common: measures, each stated in words where it is shown."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

SHIFTS = 12
"""Powers of two by which one histogram is moved to look for the best agreement."""


class Overlap(NamedTuple):
    """What the strongest stored examples of two features of one corpus have in common."""

    samples_a: int
    samples_b: int
    samples: int
    """Samples that are examples of both."""
    positions_a: int
    """Firings of the first feature in these samples."""
    positions_b: int
    positions: int
    """Positions of these samples at which both fire."""
    strongest: int
    """Of these samples those in which both are strongest at one position."""

    @property
    def sample_jaccard(self) -> float | None:
        """Samples of both, of the samples of either; None if there are none."""
        return _share(self.samples, self.samples_a + self.samples_b - self.samples)

    @property
    def position_jaccard(self) -> float | None:
        """Positions of both, of the positions of either, in samples of both."""
        return _share(self.positions, self.positions_a + self.positions_b - self.positions)


def overlap(a: Mapping[int, Sequence[int]], b: Mapping[int, Sequence[int]]) -> Overlap:
    """Of examples {sample_index: positions, strongest first}. A sample that only one of them keeps says nothing about
    where the other fires, so positions are compared in common samples alone."""
    common = a.keys() & b.keys()
    return Overlap(
        len(a),
        len(b),
        len(common),
        sum(len(a[one]) for one in common),
        sum(len(b[one]) for one in common),
        sum(len(set(a[one]) & set(b[one])) for one in common),
        sum(a[one][0] == b[one][0] for one in common),
    )


class Agreement(NamedTuple):
    """How alike two histograms of activations are."""

    overlap: float
    """Sum over the bins of the smaller share: 1 for equal shares, 0 if no bin has both. It is 1 minus the total
    variation distance."""
    best: float
    """The largest overlap when the second is multiplied by a power of two: SAEs differ in scale."""
    shift: int
    """Log2 of the factor with which ``best`` is reached; the one nearest to 1 of those that reach it."""


def agreement(a: Sequence[int], b: Sequence[int]) -> Agreement | None:
    """Of two histograms over the same bins, powers of two; None if one of the features never fires."""
    if not sum(a) or not sum(b):
        return None
    by_shift = {shift: _overlap(a, b, shift) for shift in range(-SHIFTS, SHIFTS + 1)}
    best = max(by_shift, key=lambda shift: (by_shift[shift], -abs(shift), -shift))
    return Agreement(by_shift[0], by_shift[best], best)


def _overlap(a: Sequence[int], b: Sequence[int], shift: int) -> float:
    """With the bins of the second moved up by ``shift``; those that leave the range are lost."""
    moved = [b[at - shift] if 0 <= at - shift < len(b) else 0 for at in range(len(a))]
    return sum(min(one / sum(a), other / sum(b)) for one, other in zip(a, moved, strict=True))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
