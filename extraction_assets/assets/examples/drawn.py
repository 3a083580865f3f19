"""The draws of all chunks as one, and what they must be, worked out without the code of the merge."""

from concurrent.futures import Executor
from functools import partial

import torch

from extraction_assets.engine.selection.draws import DrawHeap
from extraction_assets.engine.selection.hashing import pair_hash, sample_keys
from extraction_assets.engine.selection.intervals import OF_ALL
from extraction_assets.engine.selection.merge import Firings
from extraction_assets.engine.selection.shards import ShardedHeap
from extraction_assets.engine.shapes import DrawRules, Draws

Draw = tuple[int, int, float, Firings]
"""(interval, sample_index, max_activation, firings)"""


class MergedDraws:
    """Draws of disjoint samples, added one chunk after the other; None as soon as one chunk has none: those of a part
    of the samples would pass for those of all."""

    def __init__(self, features: range, rules: DrawRules | None, shards: int, pool: Executor) -> None:
        self._heap: ShardedHeap[Draws] | None = None
        if rules is not None:
            self._heap = ShardedHeap(partial(_heap, rules), features, shards, pool)

    def add(self, draws: Draws | None) -> None:
        """A chunk's draws, as its file holds them."""
        if draws is None:
            self._heap = None
        elif self._heap is not None:
            self._heap.add(draws)

    @property
    def held_bytes(self) -> int:
        """Of the draws and of what decides which enter."""
        return 0 if self._heap is None else self._heap.held_bytes

    def build(self) -> Draws | None:
        """The draws of all chunks; nothing can be added afterwards."""
        return None if self._heap is None else self._heap.build()


def _heap(rules: DrawRules, features: range) -> DrawHeap:
    return DrawHeap(len(features), rules, first_feature=features.start)


class ExpectedDraws:
    """What must be drawn of some features: each chunk's draws sorted and cut in plain Python."""

    def __init__(self, rules: DrawRules | None) -> None:
        self._rules = rules
        self._drawn: dict[int, list[Draw]] | None = None if rules is None else {}

    def add(self, draws: Draws | None, features: list[int]) -> None:
        """A chunk's draws, as its file holds them."""
        if draws is None or self._rules is None:
            self._drawn = None
        if draws is None or self._drawn is None:
            return
        for feature in features:
            drawn = [*self._drawn.get(feature, []), *draws_of(draws, feature)]
            self._drawn[feature] = self._first(sorted(drawn, key=lambda draw: self._place(feature, draw)))

    def of(self, feature: int) -> list[Draw] | None:
        """A feature's draws, in the order of ``Draws``; None if they are not known of all chunks."""
        return None if self._drawn is None else self._drawn[feature]

    def _place(self, feature: int, draw: Draw) -> tuple[int, int, int]:
        assert self._rules is not None
        interval, sample, *_ = draw
        return interval, pair_hash(sample_keys(self._rules.draw_seed, sample), feature), sample

    def _first(self, drawn: list[Draw]) -> list[Draw]:
        """As many of each interval as are kept."""
        assert self._rules is not None
        kept, counts = [], dict[int, int]()
        for draw in drawn:
            interval = draw[0]
            counts[interval] = counts.get(interval, 0) + 1
            of_all, of_interval = self._rules.random_examples, self._rules.interval_examples
            if counts[interval] <= (of_all if interval == OF_ALL else of_interval):
                kept.append(draw)
        return kept


def draws_of(draws: Draws, feature: int) -> list[Draw]:
    """One feature's draws in plain Python."""
    first, last = torch.searchsorted(draws.neuron_index, torch.tensor([feature, feature + 1])).tolist()
    offsets = draws.firing_offsets[first : last + 1].tolist()
    columns = (column[first:last].tolist() for column in (draws.interval, draws.sample_index, draws.max_activation))
    found = []
    for interval, sample, strongest, begin, end in zip(*columns, offsets[:-1], offsets[1:], strict=True):
        positions, activations = draws.positions[begin:end].tolist(), draws.activations[begin:end].tolist()
        found.append((interval, sample, strongest, list(zip(positions, activations, strict=True))))
    return found
