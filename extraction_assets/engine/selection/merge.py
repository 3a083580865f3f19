"""Merging top-k tables, and the deferred heap that keeps K examples of every feature in bounded memory."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.ordering import descending_bits
from extraction_assets.engine.selection.deferred import (
    Columns,
    DeferredHeap,
    empty_examples,
    merge_examples,
    take_examples,
)
from extraction_assets.engine.shapes import TopKTable

Firings = list[tuple[int, float]]

_NO_SAMPLE = 2**63 - 1  # of a feature whose table is not full: every sample comes sooner


class StrongestFirst:
    """The order of a top-k table: of each feature the ``top_k`` strongest samples, ties to the lower sample_index."""

    def __init__(self, num_features: int, top_k: int) -> None:
        self.num_groups, self.top_k = num_features, top_k

    def groups(self, columns: Columns) -> Tensor:
        return columns["neuron_index"]

    def priorities(self, columns: Columns) -> Tensor:
        return descending_bits(columns["max_activation"])

    def sizes(self, groups: Tensor) -> int:
        return self.top_k


def empty_table(device: torch.device | str = "cpu") -> TopKTable:
    """A table without examples: the neutral element of ``merge_top_k_tables``."""
    return empty_examples(TopKTable, device)


def merge_top_k_tables(tables: Sequence[TopKTable], top_k: int, num_features: int) -> TopKTable:
    """The top-k table of all samples from tables of disjoint samples, in any order (``merge_examples``)."""
    return merge_examples(tables, StrongestFirst(num_features, top_k), TopKTable, num_features)


def ranks_of_rows(neurons: np.ndarray, rows: slice) -> np.ndarray:
    """Rank from 0 of some examples within their features: int32, in memory for these alone. ``neurons`` int64 [E] are
    those of all examples, ascending."""
    chosen = neurons[rows]
    if not len(chosen):
        return np.zeros(0, np.int32)
    numbers = np.arange(rows.start, rows.start + len(chosen))
    starts = np.where(np.diff(chosen, prepend=chosen[0] - 1) != 0, numbers, 0)
    starts[0] = np.searchsorted(neurons, chosen[0])  # its feature may begin before these rows
    return (numbers - np.maximum.accumulate(starts)).astype(np.int32)


def as_dict(table: TopKTable) -> dict[int, list[tuple[float, int, Firings]]]:
    """A table as plain Python: feature -> its examples (max_activation, sample_index, [(position, activation)]),
    strongest first. For people and tests; at F * K examples the arrays are the form to work with."""
    offsets = table.firing_offsets.tolist()
    firings = list(zip(table.positions.tolist(), table.activations.tolist(), strict=True))
    columns = zip(table.neuron_index.tolist(), table.max_activation.tolist(), table.sample_index.tolist(), strict=True)
    heaps: dict[int, list[tuple[float, int, Firings]]] = {}
    for example, (neuron, strongest, sample) in enumerate(columns):
        example_firings = firings[offsets[example] : offsets[example + 1]]
        heaps.setdefault(neuron, []).append((strongest, sample, example_firings))
    return heaps


class DeferredTopKHeap(DeferredHeap[TopKTable]):
    """Keeps the ``top_k`` strongest examples of each of ``num_features`` features; memory is O(F * K + buffer)."""

    def __init__(
        self, num_features: int, top_k: int = 100, min_activation: float = 0.0, buffer_examples: int = 1 << 18
    ) -> None:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        super().__init__(StrongestFirst(num_features, top_k), TopKTable, num_features, buffer_examples)
        self.top_k = top_k
        self.min_activation = min_activation
        self._floor: Tensor | None = None
        self._last_sample: Tensor | None = None

    def floor(self, device: torch.device | str) -> Tensor:
        """Float32 [F]: the maximum that a newcomer from a *later* sample must exceed to enter.

        ``min_activation`` until a feature's table is full, then the maximum of its K-th example as of the last
        compaction: exact to drop by, since an equal maximum loses to the lower sample index.
        """
        if self._floor is None:
            self._floor = torch.full((self.num_features,), self.min_activation, device=device)
        return self._floor

    def contenders(self, table: TopKTable) -> TopKTable:
        """The examples of a table, of any samples, that may still enter; the others need not be added.

        Exact: what is dropped loses to the K-th example of its feature as of the last compaction, by its maximum or,
        where that is equal, by its sample. For tables that ``floor`` did not thin out already.
        Peak extra memory: 13 bytes an example, and the result. Three synchronisations.
        """
        if self._last_sample is None:
            return table
        strongest, neurons = table.max_activation, table.neuron_index
        floor = self.floor(strongest.device)[neurons]
        rows = (strongest >= floor).nonzero().squeeze(1)  # few of them once some tables were added
        sooner = table.sample_index[rows] < self._last_sample[neurons[rows]]
        return take_examples(table, rows[(strongest[rows] > floor[rows]) | sooner])

    def _thresholds_bytes(self) -> int:
        return sum(one.nbytes for one in (self._floor, self._last_sample) if one is not None)

    def _remember(self, table: TopKTable, last: Tensor, groups: Tensor) -> None:
        device = table.neuron_index.device
        self._floor = torch.full((self.num_features,), self.min_activation, device=device)
        self._floor[groups] = table.max_activation[last]
        self._last_sample = torch.full((self.num_features,), _NO_SAMPLE, device=device)
        self._last_sample[groups] = table.sample_index[last]
