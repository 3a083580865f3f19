"""The sequential loop that the vectorized engine replaces: slow, obvious, and the oracle of the tests.

For every sample and every feature it copies one column to the CPU, finds its maximum and the positions where it
fires, and pushes the example on a heap.
"""

import heapq
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.selection.merge import Firings
from extraction_assets.engine.selection.sequential_draws import DrawsToCompare, LegacyDraws
from extraction_assets.engine.shapes import TopKTable

Entry = tuple[float, int, Firings]
"""A heap entry: (max_activation, -sample_index, firings). The smallest is dropped first."""


def column_firings(column: np.ndarray, counted: np.ndarray) -> Firings:
    """Firing positions of one feature in one sample, by (activation descending, position ascending)."""
    positions = [p for p in range(len(column)) if counted[p] and column[p] > 0]
    positions.sort(key=lambda p: (-column[p], p))
    return [(p, float(column[p])) for p in positions]


class LegacyHeaps:
    """One ``heapq`` of at most ``top_k`` examples for each feature."""

    def __init__(
        self,
        num_features: int,
        top_k: int = 100,
        min_activation: float = 0.0,
        draws: LegacyDraws | None = None,
    ) -> None:
        self.top_k = top_k
        self.draws = draws
        """Draws from the same samples, if any are made."""
        self.min_activation = float(np.float32(min_activation))  # activations are float32: compare like with like
        self.heaps: list[list[Entry]] = [[] for _ in range(num_features)]

    def add_sample(self, sae_features: Tensor, counted: Tensor, sample_index: int) -> None:
        """One sample: ``sae_features`` float32 [T, F] on any device, ``counted`` bool [T]."""
        mask = counted.cpu().numpy()
        for feature in range(sae_features.shape[1]):
            column = sae_features[:, feature].cpu().numpy()
            firings = column_firings(column, mask)
            if firings and firings[0][1] > self.min_activation:
                self._push(feature, (firings[0][1], -sample_index, firings))
            if firings and self.draws is not None:
                self.draws.push(feature, sample_index, firings)

    def _push(self, feature: int, entry: Entry) -> None:
        if len(self.heaps[feature]) < self.top_k:
            heapq.heappush(self.heaps[feature], entry)
        else:
            heapq.heappushpop(self.heaps[feature], entry)

    def build_heaps(self) -> TopKTable:
        """The kept examples as a top-k table, on the CPU."""
        neurons, samples, strongest, lengths, firings = [], [], [], [0], []
        for feature, heap in enumerate(self.heaps):
            for maximum, negative_sample, sample_firings in sorted(heap, key=lambda entry: (-entry[0], -entry[1])):
                neurons.append(feature)
                samples.append(-negative_sample)
                strongest.append(maximum)
                lengths.append(len(sample_firings))
                firings.extend(sample_firings)
        return TopKTable(
            torch.tensor(neurons, dtype=torch.int64),
            torch.tensor(samples, dtype=torch.int64),
            torch.tensor(strongest, dtype=torch.float32),
            torch.tensor(lengths, dtype=torch.int64).cumsum(0),
            torch.tensor([p for p, _ in firings], dtype=torch.int64),
            torch.tensor([a for _, a in firings], dtype=torch.float32),
        )


class LegacyComparison(NamedTuple):
    """A chunk's top-k table compared with the legacy loop on a part of its samples and features."""

    pairs: int
    """(sample, feature) pairs compared."""
    mismatches: list[str]
    """One sentence for each pair that differs, at most ten."""


def compare_with_legacy(
    table: TopKTable,
    probe: Mapping[int, Tensor],
    counted: Tensor,
    features: Sequence[int],
    *,
    first_sample: int,
    top_k: int,
    min_activation: float = 0.0,
    seconds: float = float("inf"),
    draws: DrawsToCompare | None = None,
) -> LegacyComparison:
    """Whether the table, and ``draws`` where given, agree with the legacy loop on each probed (sample, feature) pair.

    ``probe`` holds dense features float32 [T, F] by row of the chunk, ``counted`` bool [n, T]. An example that the
    loop finds must stand in the table with the same maximum and firings, or be beaten by K others. Stops after
    ``seconds``; the pairs are visited in the given order.
    """
    kept = _KeptExamples(table)
    least = float(np.float32(min_activation))
    deadline = time.monotonic() + seconds
    pairs, mismatches = 0, []
    for row, dense in probe.items():
        columns, mask = dense[:, list(features)].numpy(), counted[row].numpy()
        for slot, feature in enumerate(features):
            firings = column_firings(columns[:, slot], mask)
            pairs += 1
            if not _agrees(kept, feature, first_sample + row, firings, top_k, least):
                mismatches.append(
                    f"feature {feature}, sample {first_sample + row}: the legacy loop finds {firings[:5]}"
                )
            elif draws is not None and not draws.agree(feature, first_sample + row, firings):
                mismatches.append(f"feature {feature}, sample {first_sample + row}: the legacy loop draws otherwise")
            if len(mismatches) >= 10 or time.monotonic() > deadline:
                return LegacyComparison(pairs, mismatches)
    return LegacyComparison(pairs, mismatches)


class _KeptExamples:
    """Looks up a table's examples one feature at a time, because the probe needs few of them."""

    def __init__(self, table: TopKTable) -> None:
        self._neurons, self._samples, self._maxima, self._offsets, self._positions, self._activations = (
            column.numpy() for column in table
        )

    def rows(self, feature: int) -> range:
        """The rows of a feature's examples, strongest first."""
        first, last = np.searchsorted(self._neurons, [feature, feature + 1])
        return range(int(first), int(last))

    def of_sample(self, rows: range, sample: int) -> list[tuple[float, Firings]]:
        """(max_activation, firings) of the examples that are of ``sample``; at most one where the table is sound."""
        found = np.flatnonzero(self._samples[rows.start : rows.stop] == sample).tolist()
        return [(float(self._maxima[rows[slot]]), self._firings(rows[slot])) for slot in found]

    def weakest(self, rows: range) -> tuple[float, int]:
        """(-max_activation, sample_index) of a feature's last example: orders like the examples do."""
        return -float(self._maxima[rows[-1]]), int(self._samples[rows[-1]])

    def _firings(self, row: int) -> Firings:
        span = slice(int(self._offsets[row]), int(self._offsets[row + 1]))
        return list(zip(self._positions[span].tolist(), self._activations[span].tolist(), strict=True))


def _agrees(
    kept: _KeptExamples, feature: int, sample: int, firings: Firings, top_k: int, min_activation: float
) -> bool:
    """Whether a feature's kept examples are consistent with ``sample`` having these firings."""
    rows = kept.rows(feature)
    kept_firings = kept.of_sample(rows, sample)
    if not firings or firings[0][1] <= min_activation:
        return not kept_firings
    if kept_firings:
        return kept_firings == [(firings[0][1], firings)] and len(rows) <= top_k
    return len(rows) == top_k and kept.weakest(rows) < (-firings[0][1], sample)
