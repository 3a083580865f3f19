"""Examples drawn from the whole range of a feature's activations: the lowest seeded hashes of (feature, sample).

A hash depends on nothing but seed, feature and sample, so the lowest of all samples are among the lowest of each part:
draws merge exactly, whatever the batches, the chunks, their order or the GPUs. Of each feature ``interval_examples``
are drawn from each interval of the sample's maximum (``intervals``), and ``random_examples`` from all samples in which
it fires; both kinds use one hash, so the same sample may be drawn twice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.ordering import bits_for, gather_segments, order_by, rank_within
from extraction_assets.engine.selection.deferred import (
    Columns,
    DeferredHeap,
    empty_examples,
    merge_examples,
    take_examples,
)
from extraction_assets.engine.selection.hashing import HASH_BITS, pair_hash, sample_keys
from extraction_assets.engine.selection.intervals import INTERVALS, OF_ALL
from extraction_assets.engine.selection.pairs import FiringPairs
from extraction_assets.engine.selection.select import firings_of, strongest_pairs
from extraction_assets.engine.shapes import DrawRules, Draws, SparseFeatures, TopKTable

GROUPS_PER_FEATURE = INTERVALS + 1
"""A feature's draws from all samples, then those from each interval."""

_HIGHEST_HASH = 2**HASH_BITS - 1


class LowestHashFirst:
    """The order of draws: of each feature and interval the samples with the lowest hash, ties to the lower
    sample_index."""

    def __init__(self, num_features: int, rules: DrawRules, first_feature: int = 0) -> None:
        """``first_feature`` is what a feature's number is counted from."""
        self.num_features, self.rules, self.first_feature = num_features, rules, first_feature
        self.num_groups = num_features * GROUPS_PER_FEATURE

    def groups(self, columns: Columns) -> Tensor:
        return _group(columns["neuron_index"], columns["interval"])

    def priorities(self, columns: Columns) -> Tensor:
        features = columns["neuron_index"] + self.first_feature if self.first_feature else columns["neuron_index"]
        return pair_hash(sample_keys(self.rules.draw_seed, columns["sample_index"]), features)

    def sizes(self, groups: Tensor) -> Tensor | int:
        of_interval, of_all = self.rules.interval_examples, self.rules.random_examples
        if of_interval == of_all:
            return of_all
        return torch.where(groups % GROUPS_PER_FEATURE == 0, of_all, of_interval)


def empty_draws(device: torch.device | str = "cpu") -> Draws:
    """The neutral element of ``merge_draws``."""
    return empty_examples(Draws, device)


def merge_draws(parts: Sequence[Draws], rules: DrawRules, num_features: int) -> Draws:
    """The draws of all samples from those of disjoint samples, in any order (``merge_examples``)."""
    return merge_examples(parts, LowestHashFirst(num_features, rules), Draws, num_features)


class DrawHeap(DeferredHeap[Draws]):
    """Keeps the draws of each feature and interval.

    Memory: what is kept, at most (80 * interval_examples + random_examples) examples a feature and mostly a tenth of
    that, since a feature fires in few intervals; the buffer; and 324 bytes a feature of thresholds, 340 MB at
    F = 2^20.
    """

    def __init__(
        self, num_features: int, rules: DrawRules, buffer_examples: int = 1 << 18, first_feature: int = 0
    ) -> None:
        self.order = LowestHashFirst(num_features, rules, first_feature)
        super().__init__(self.order, Draws, num_features, buffer_examples)
        self._thresholds: Tensor | None = None

    def thresholds(self, device: torch.device | str) -> Tensor:
        """int32 [F * 81]: the highest hash with which a newcomer may enter a feature's draws from all samples, then
        those from each interval.

        The highest hash there is until so many are drawn as are kept, then that of the last one as of the last
        compaction: exact to drop by. A hash equal to it enters if its sample comes sooner.
        """
        if self._thresholds is None:
            shape = (self.order.num_groups,)
            self._thresholds = torch.empty(shape, dtype=torch.int32, device=device)
            self._reset(self._thresholds)
        return self._thresholds

    def contenders(self, draws: Draws) -> Draws:
        """The draws of any samples that may still enter; the others need not be added. Two synchronisations."""
        if self._thresholds is None:
            return draws
        columns = draws._asdict()
        may_enter = self.order.priorities(columns) <= self._thresholds[self.order.groups(columns)]
        return take_examples(draws, may_enter.nonzero().squeeze(1))

    def _reset(self, thresholds: Tensor) -> None:
        """-1, below any hash, where nothing is to be drawn."""
        rules, by_feature = self.order.rules, thresholds.view(-1, GROUPS_PER_FEATURE)
        by_feature[:, :1] = _HIGHEST_HASH if rules.random_examples else -1
        by_feature[:, 1:] = _HIGHEST_HASH if rules.interval_examples else -1

    def _thresholds_bytes(self) -> int:
        return 0 if self._thresholds is None else self._thresholds.nbytes

    def _remember(self, table: Draws, last: Tensor, groups: Tensor) -> None:
        columns = {"neuron_index": table.neuron_index[last], "sample_index": table.sample_index[last]}
        thresholds = self.thresholds(table.neuron_index.device)  # in place: it is large where F is
        self._reset(thresholds)
        thresholds[groups] = self.order.priorities(columns).to(torch.int32)


class DrawThresholds(NamedTuple):
    """What decides whether a pair may be drawn."""

    hashes: Tensor
    """int32 [F * 81]: as ``DrawHeap.thresholds``."""
    seed: int


class Candidates(NamedTuple):
    """Draws of some samples before their firings are looked up."""

    pairs: Tensor
    """int64 [E]: rows of the ``FiringPairs``."""
    interval: Tensor
    """int64 [E]: as in ``Draws``."""


def select_with_draws(
    features: SparseFeatures,
    pairs: FiringPairs,
    first_sample: int,
    top_k: int,
    floor: Tensor,
    order: LowestHashFirst,
    thresholds: Tensor,
) -> tuple[TopKTable, Draws]:
    """The top-k table and the draws of one group of samples, whose firings are looked up once for both.

    ``features`` holds counted positions only, ``pairs`` are ``pairs_above(sample_maxima(features))``. The table is that
    of ``select_top_k`` with ``floor`` float32 [F]; a pair is drawn only with a hash up to its threshold
    (``DrawHeap.thresholds``). Works on the pairs and the non-zeros, never on [n, T, F]. Eight synchronisations.
    Peak extra memory: about 100 bytes a pair, and 8 bytes a cell of [n, F].
    """
    above = (pairs.maxima > floor[pairs.features]).nonzero().squeeze(1)
    top = above[strongest_pairs(pairs.take(above), features.num_samples, features.num_features, top_k)]
    drawn = _lowest_hashes(pairs, features.num_samples, first_sample, order, thresholds)
    offsets, positions, activations, place = _firings_of_either(features, pairs, top, drawn.pairs)
    of_top, of_drawn = (gather_segments(offsets, place[rows]) for rows in (top, drawn.pairs))
    table = TopKTable(
        pairs.features[top],
        pairs.samples[top] + first_sample,
        pairs.maxima[top],
        of_top[1],
        positions[of_top[0]],
        activations[of_top[0]],
    )
    draws = Draws(
        pairs.features[drawn.pairs],
        drawn.interval,
        pairs.samples[drawn.pairs] + first_sample,
        pairs.maxima[drawn.pairs],
        of_drawn[1],
        positions[of_drawn[0]],
        activations[of_drawn[0]],
    )
    return table, draws


def _lowest_hashes(
    pairs: FiringPairs, num_samples: int, first_sample: int, order: LowestHashFirst, thresholds: Tensor
) -> Candidates:
    """The draws of these samples in their order. Two synchronisations."""
    samples = torch.arange(first_sample, first_sample + num_samples, device=pairs.samples.device)
    hashes = pair_hash(sample_keys(order.rules.draw_seed, samples)[pairs.samples], pairs.features)  # [C]
    interval = pairs.intervals
    of_all, of_interval = (_group(pairs.features, one) for one in (OF_ALL, interval))
    may_enter = torch.stack([hashes <= thresholds[of_all], hashes <= thresholds[of_interval]])  # [2, C]
    kind, rows = may_enter.nonzero(as_tuple=True)
    interval = torch.where(kind == 0, OF_ALL, interval[rows])
    groups = _group(pairs.features[rows], interval)
    sorted_rows = order_by(
        (groups, bits_for(order.num_groups)),
        (hashes[rows], HASH_BITS),
        (pairs.samples[rows], bits_for(num_samples)),
    )
    groups = groups[sorted_rows]
    kept = sorted_rows[rank_within(groups, order.num_groups) < order.sizes(groups)]
    return Candidates(rows[kept], interval[kept])


def _firings_of_either(
    features: SparseFeatures, pairs: FiringPairs, top: Tensor, drawn: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The firings of the pairs that are in either list: (offsets, positions, activations) of these pairs in the order
    of ``pairs``, and int64 [C] which of them a pair is. Two synchronisations."""
    is_wanted = torch.zeros(len(pairs.samples), dtype=torch.bool, device=pairs.samples.device)
    is_wanted.index_fill_(0, top, True)
    is_wanted.index_fill_(0, drawn, True)
    wanted = is_wanted.nonzero().squeeze(1)
    place = is_wanted.cumsum(0) - 1
    return *firings_of(features, pairs.samples[wanted], pairs.features[wanted]), place


def _group(features: Tensor, interval: Tensor | int) -> Tensor:
    """The number of the group of each feature and interval: int64."""
    return features * GROUPS_PER_FEATURE + (interval - OF_ALL)
