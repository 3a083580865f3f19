"""Merging top-k tables, and the deferred heap that keeps K examples of every feature in bounded memory."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from extraction_assets.engine.memory import within_memory
from extraction_assets.engine.ordering import (
    VALUE_BITS,
    bits_for,
    descending_bits,
    gather_segments,
    offsets_of,
    order_by,
    rank_within,
)
from extraction_assets.engine.shapes import TopKTable

Firings = list[tuple[int, float]]

_NO_SAMPLE = 2**63 - 1  # of a feature whose table is not full: every sample comes sooner


def empty_table(device: torch.device | str = "cpu") -> TopKTable:
    """A table without examples: the neutral element of ``merge_top_k_tables``."""
    none = torch.zeros(0, dtype=torch.int64, device=device)
    values = torch.zeros(0, dtype=torch.float32, device=device)
    return TopKTable(none, none, values, torch.zeros(1, dtype=torch.int64, device=device), none, values)


def merge_top_k_tables(tables: Sequence[TopKTable], top_k: int, num_features: int) -> TopKTable:
    """The top-k table of all samples from tables of disjoint samples, in any order.

    merge(a, merge(b, c)) = merge(merge(c, a), b): associative and commutative, bit for bit.
    Raises ValueError if two tables hold the same example, with equal maxima or not.
    Peak extra memory: 40 bytes an example and 24 a firing of the input; where that is too much, of half of the
    features after the other half. Three synchronisations; one more, and one more sort, where the tables' ranges of
    samples overlap.
    """
    return _merge_features(tables, top_k, num_features, range(num_features))


def _merge_features(tables: Sequence[TopKTable], top_k: int, num_features: int, features: range) -> TopKTable:
    """Of tables that hold ``features`` alone."""

    def by_halves() -> TopKTable:
        if len(features) < 2:
            raise MemoryError(f"out of memory while the examples of feature {features.start} are merged")
        middle = len(features) // 2
        halves = []
        for half in (features[:middle], features[middle:]):
            parts = [_of_features(table, half) for table in tables]
            halves.append(_merge_features(parts, top_k, num_features, half))
        return _concatenate(halves)

    return within_memory(lambda: _merge(tables, top_k, num_features), by_halves)


def _of_features(table: TopKTable, features: range) -> TopKTable:
    """The examples of a range of features, in the table's own memory but for the offsets. Three synchronisations."""
    neurons = table.neuron_index
    edges = torch.arange(features.start, features.stop + 1, len(features), device=neurons.device)
    first, last = torch.searchsorted(neurons, edges).tolist()
    offsets = table.firing_offsets[first : last + 1]
    begin, end = int(offsets[0]), int(offsets[-1])
    return TopKTable(
        neurons[first:last],
        table.sample_index[first:last],
        table.max_activation[first:last],
        offsets - begin,
        table.positions[begin:end],
        table.activations[begin:end],
    )


def _concatenate(parts: list[TopKTable]) -> TopKTable:
    """Tables of ascending ranges of features as one; empties ``parts``, so that only one column is there twice."""
    columns = {name: [getattr(part, name) for part in parts] for name in TopKTable._fields}
    parts.clear()
    first, offsets = 0, columns["firing_offsets"]
    for number, positions in enumerate(columns["positions"]):
        offsets[number] = (offsets[number][1:] if number else offsets[number]) + first
        first += len(positions)
    joined = {}
    for name in TopKTable._fields:
        join = partial(torch.cat, columns.pop(name))
        joined[name] = within_memory(join, join)  # the second time after freeing unused memory
    return TopKTable(**joined)


def _merge(tables: Sequence[TopKTable], top_k: int, num_features: int) -> TopKTable:
    tables = [table for table in tables if len(table.neuron_index)] or list(tables[:1])
    if not tables or not len(tables[0].neuron_index):
        return tables[0] if tables else empty_table()
    neurons = torch.cat([table.neuron_index for table in tables])
    samples = torch.cat([table.sample_index for table in tables])
    strongest = torch.cat([table.max_activation for table in tables])
    spans = _sample_spans(tables)
    neuron_column = (neurons, bits_for(num_features))
    sample_column = (samples, bits_for(max(last for _, last in spans) + 1))
    if any(last >= first for (_, last), (first, _) in pairwise(spans)):
        _refuse_duplicates(neurons, samples, order_by(neuron_column, sample_column))
    order = order_by(neuron_column, (descending_bits(strongest), VALUE_BITS), sample_column, in_runs=True)
    order = order[rank_within(neurons[order], num_features) < top_k]
    lengths = torch.cat([table.firing_offsets.diff() for table in tables])
    rows, offsets = gather_segments(offsets_of(lengths), order)
    positions = torch.cat([table.positions for table in tables])[rows]
    activations = torch.cat([table.activations for table in tables])[rows]
    return TopKTable(neurons[order], samples[order], strongest[order], offsets, positions, activations)


def take_examples(table: TopKTable, rows: Tensor) -> TopKTable:
    """The examples of some rows, int64 [E'] ascending. One synchronisation."""
    firings, offsets = gather_segments(table.firing_offsets, rows)
    return TopKTable(
        table.neuron_index[rows],
        table.sample_index[rows],
        table.max_activation[rows],
        offsets,
        table.positions[firings],
        table.activations[firings],
    )


def _sample_spans(tables: Sequence[TopKTable]) -> list[tuple[int, int]]:
    """First and last sample of each table, ascending; no table may be empty. One synchronisation."""
    spans = torch.stack([torch.stack(torch.aminmax(table.sample_index)) for table in tables])
    return sorted((first, last) for first, last in spans.tolist())


def _refuse_duplicates(neurons: Tensor, samples: Tensor, order: Tensor) -> None:
    """``order`` is by (neuron, sample), so the two rows of a duplicate example are neighbours."""
    neurons, samples = neurons[order], samples[order]
    same = (neurons[1:] == neurons[:-1]) & (samples[1:] == samples[:-1])
    if bool(same.any()):
        row = int(same.nonzero()[0])
        raise ValueError(
            f"feature {int(neurons[row])} has two examples of sample {int(samples[row])}: the tables to merge overlap"
        )


def ranks(table: TopKTable, num_features: int) -> Tensor:
    """Rank from 0 of each example of a table within its feature: int64 [E]."""
    return rank_within(table.neuron_index, num_features)


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


class DeferredTopKHeap:
    """Keeps the ``top_k`` strongest examples of each of ``num_features`` features.

    Selection is deferred: ``add_batch`` only appends arrays, and once the appended examples outnumber
    ``buffer_examples`` and what is kept, one merge compacts them. Memory is O(F * K + buffer) whatever the
    number of examples seen; each example takes part in an amortised constant number of sorts.
    """

    def __init__(
        self, num_features: int, top_k: int = 100, min_activation: float = 0.0, buffer_examples: int = 1 << 18
    ) -> None:
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self.num_features = num_features
        self.top_k = top_k
        self.min_activation = min_activation
        self._buffer_examples = buffer_examples
        self._tables: list[TopKTable] = []
        self._compacted_examples = 0
        self._floor: Tensor | None = None
        self._last_sample: Tensor | None = None

    def add_batch(self, table: TopKTable) -> None:
        """Add the examples of samples that were not added before (any order, any device, one device).

        A sample that is added twice is refused when its two examples are merged; dropped examples go unnoticed.
        """
        self._tables.append(table)
        pending = sum(len(t.neuron_index) for t in self._tables) - self._compacted_examples
        if pending > max(self._buffer_examples, self._compacted_examples):
            self._compact()

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
        Peak extra memory: 30 bytes an example, and the result. Two synchronisations.
        """
        if self._last_sample is None:
            return table
        strongest = table.max_activation
        floor = self.floor(strongest.device)[table.neuron_index]
        sooner = table.sample_index < self._last_sample[table.neuron_index]
        return take_examples(table, ((strongest > floor) | ((strongest == floor) & sooner)).nonzero().squeeze(1))

    def build_heaps(self) -> TopKTable:
        """The top-k table of everything added so far; more batches may follow."""
        if not self._tables:
            return empty_table()
        if len(self._tables) > 1 or self._last_sample is None:
            self._compact()
        return self._tables[0]

    def _compact(self) -> None:
        table = merge_top_k_tables(self._tables, self.top_k, self.num_features)
        self._tables = [table]
        self._compacted_examples = len(table.neuron_index)
        last = (ranks(table, self.num_features) == self.top_k - 1).nonzero().squeeze(1)
        device = table.neuron_index.device
        self._floor = torch.full((self.num_features,), self.min_activation, device=device)
        self._floor[table.neuron_index[last]] = table.max_activation[last]
        self._last_sample = torch.full((self.num_features,), _NO_SAMPLE, device=device)
        self._last_sample[table.neuron_index[last]] = table.sample_index[last]
