"""Examples of which the first of each group are kept: their merge, and the heap that defers it, in bounded memory.

What a group is, and what comes first in it, is a ``Ranking``: the strongest of a feature (``merge``), or the lowest
hashes of a feature and an interval (``draws``).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from extraction_assets.engine.memory import within_memory
from extraction_assets.engine.ordering import (
    VALUE_BITS,
    bits_for,
    gather_segments,
    offsets_of,
    order_by,
    rank_within,
)
from extraction_assets.engine.shapes import Draws, TopKTable

Columns = Mapping[str, Tensor]
"""The columns of a table that have a row an example, by name."""

Examples = TypeVar("Examples", TopKTable, Draws)

_FIRINGS = ("firing_offsets", "positions", "activations")


class Ranking(Protocol):
    """Which examples are kept: of each group the first ones by (priority, sample_index)."""

    num_groups: int

    def groups(self, columns: Columns) -> Tensor:
        """int64 [E]: the group of each example, below ``num_groups``; those of a feature lie beside each other."""

    def priorities(self, columns: Columns) -> Tensor:
        """int64 [E] of 31 bits: the lowest come first."""

    def sizes(self, groups: Tensor) -> Tensor | int:
        """How many examples are kept of each of these groups: int64, or one number for all."""


def empty_examples(kind: type[Examples], device: torch.device | str = "cpu") -> Examples:
    """A table without examples: the neutral element of ``merge_examples``."""
    none = torch.zeros(0, dtype=torch.int64, device=device)
    values = torch.zeros(0, dtype=torch.float32, device=device)
    columns = {name: values if "activation" in name else none for name in kind._fields}
    return kind(**{**columns, "firing_offsets": torch.zeros(1, dtype=torch.int64, device=device)})


def columns_of(table: Examples) -> dict[str, Tensor]:
    """The columns that have a row an example."""
    return {name: column for name, column in table._asdict().items() if name not in _FIRINGS}


def merge_examples(tables: Sequence[Examples], ranking: Ranking, kind: type[Examples], num_features: int) -> Examples:
    """The table of all samples from tables of disjoint samples, in any order: associative and commutative, bit for bit.

    Raises ValueError if two tables hold the same example. Peak extra memory: 40 bytes an example (16 more where its
    priority is a hash) and 24 a firing of the input; where that is too much, of half of the features after the other
    half. Three synchronisations; one more, and one more sort, where the tables' ranges of samples overlap. Soonest
    where the tables are given in the order of their samples. In each table examples of one feature (and interval) and
    priority stand in the order of their samples.
    """
    return _merge_features(tables, ranking, kind, range(num_features))


def _merge_features(tables: Sequence[Examples], ranking: Ranking, kind: type[Examples], features: range) -> Examples:
    """Of tables that hold ``features`` alone."""

    def by_halves() -> Examples:
        if len(features) < 2:
            raise MemoryError(f"out of memory while the examples of feature {features.start} are merged")
        middle = len(features) // 2
        halves = []
        for half in (features[:middle], features[middle:]):
            parts = [of_features(table, half) for table in tables]
            halves.append(_merge_features(parts, ranking, kind, half))
        return concatenate(halves)

    return within_memory(lambda: _merge(tables, ranking, kind), by_halves)


def of_features(table: Examples, features: range) -> Examples:
    """The examples of a range of features, in the table's own memory but for the offsets. Three synchronisations."""
    neurons = table.neuron_index
    edges = torch.tensor([features.start, features.stop], device=neurons.device)
    first, last = torch.searchsorted(neurons, edges).tolist()
    offsets = table.firing_offsets[first : last + 1]
    begin, end = int(offsets[0]), int(offsets[-1])
    return table._replace(
        **{name: column[first:last] for name, column in columns_of(table).items()},
        firing_offsets=offsets - begin,
        positions=table.positions[begin:end],
        activations=table.activations[begin:end],
    )


def concatenate(parts: list[Examples]) -> Examples:
    """Tables of ascending ranges of features as one; empties ``parts``, so that only one column is there twice."""
    if len(parts) == 1:
        return parts.pop()
    kind = type(parts[0])
    columns = {name: [getattr(part, name) for part in parts] for name in kind._fields}
    parts.clear()
    first, offsets = 0, columns["firing_offsets"]
    for number, positions in enumerate(columns["positions"]):
        offsets[number] = (offsets[number][1:] if number else offsets[number]) + first
        first += len(positions)
    joined = {}
    for name in kind._fields:
        join = partial(torch.cat, columns.pop(name))
        joined[name] = within_memory(join, join)  # the second time after freeing unused memory
    return kind(**joined)


def _merge(tables: Sequence[Examples], ranking: Ranking, kind: type[Examples]) -> Examples:
    tables = [table for table in tables if len(table.neuron_index)] or list(tables[:1])
    if not tables or not len(tables[0].neuron_index):
        return tables[0] if tables else empty_examples(kind)
    rows = {name: torch.cat([getattr(table, name) for table in tables]) for name in columns_of(tables[0])}
    spans = _sample_spans(tables)
    groups, least, most = ranking.groups(rows), min(spans)[0], max(last for _, last in spans)
    group_column = (groups, bits_for(ranking.num_groups))
    sample_column = (rows["sample_index"] - least, bits_for(most + 1 - least))
    overlap = any(last >= first for (_, last), (first, _) in pairwise(sorted(spans)))
    if overlap:
        _refuse_duplicates(rows, groups, order_by(group_column, sample_column))
    # A stable sort leaves equals in the order of their samples if the tables have it: often one sort instead of two.
    columns: list[tuple[Tensor, int]] = [group_column, (ranking.priorities(rows), VALUE_BITS)]
    if overlap or spans != sorted(spans):
        columns.append(sample_column)
    order = order_by(*columns, in_runs=True)
    groups = groups[order]
    order = order[rank_within(groups, ranking.num_groups) < ranking.sizes(groups)]
    lengths = torch.cat([table.firing_offsets.diff() for table in tables])
    firings, offsets = gather_segments(offsets_of(lengths), order)
    return tables[0]._replace(
        **{name: column[order] for name, column in rows.items()},
        firing_offsets=offsets,
        positions=torch.cat([table.positions for table in tables])[firings],
        activations=torch.cat([table.activations for table in tables])[firings],
    )


def take_examples(table: Examples, rows: Tensor) -> Examples:
    """The examples of some rows, int64 [E'] ascending. One synchronisation."""
    firings, offsets = gather_segments(table.firing_offsets, rows)
    return table._replace(
        **{name: column[rows] for name, column in columns_of(table).items()},
        firing_offsets=offsets,
        positions=table.positions[firings],
        activations=table.activations[firings],
    )


def _sample_spans(tables: Sequence[Examples]) -> list[tuple[int, int]]:
    """First and last sample of each table, none of which may be empty. One synchronisation."""
    spans = torch.stack([torch.stack(torch.aminmax(table.sample_index)) for table in tables])
    return [(first, last) for first, last in spans.tolist()]


def _refuse_duplicates(rows: Columns, groups: Tensor, order: Tensor) -> None:
    """``order`` is by (group, sample), so the two rows of a duplicate example are neighbours."""
    groups, samples = groups[order], rows["sample_index"][order]
    same = (groups[1:] == groups[:-1]) & (samples[1:] == samples[:-1])
    if bool(same.any()):
        row = int(same.nonzero()[0])
        feature = int(rows["neuron_index"][order[row]])
        raise ValueError(
            f"feature {feature} has two examples of sample {int(samples[row])}: the tables to merge overlap"
        )


class DeferredHeap(ABC, Generic[Examples]):
    """Keeps the first examples of each group of a ranking.

    Selection is deferred: ``add_batch`` only appends arrays, and once the appended examples outnumber
    ``buffer_examples`` and what is kept, one merge compacts them. Memory is O(kept + buffer) whatever the
    number of examples seen; each example takes part in an amortised constant number of sorts.
    """

    def __init__(self, ranking: Ranking, kind: type[Examples], num_features: int, buffer_examples: int) -> None:
        self.num_features = num_features
        self._ranking = ranking
        self._kind: type[Examples] = kind
        self._buffer_examples = buffer_examples
        self._tables: list[Examples] = []
        self._compacted_examples = 0
        self._is_compact = False

    def add_batch(self, table: Examples) -> None:
        """Add the examples of samples that were not added before (any order, any device, one device).

        A sample that is added twice is refused when its two examples are merged; dropped examples go unnoticed.
        """
        self._tables.append(table)
        pending = sum(len(t.neuron_index) for t in self._tables) - self._compacted_examples
        if pending > max(self._buffer_examples, self._compacted_examples):
            self._compact()

    @property
    def held_bytes(self) -> int:
        """Of the examples that were added and not dropped yet, and of what decides which enter."""
        examples = sum(column.nbytes for table in self._tables for column in table)
        return examples + self._thresholds_bytes()

    def build_heaps(self) -> Examples:
        """The table of everything added so far; more batches may follow."""
        if not self._tables:
            return empty_examples(self._kind)
        if len(self._tables) > 1 or not self._is_compact:
            self._compact()
        return self._tables[0]

    def _compact(self) -> None:
        table = merge_examples(self._tables, self._ranking, self._kind, self.num_features)
        self._tables, self._is_compact = [table], True
        self._compacted_examples = len(table.neuron_index)
        groups = self._ranking.groups(columns_of(table))
        rank = rank_within(groups, self._ranking.num_groups)
        last = (rank == self._ranking.sizes(groups) - 1).nonzero().squeeze(1)
        self._remember(table, last, groups[last])

    @abstractmethod
    def contenders(self, table: Examples) -> Examples:
        """The examples of a table, of any samples, that may still enter; the others need not be added."""

    @abstractmethod
    def _thresholds_bytes(self) -> int:
        """Of what decides which examples enter."""

    @abstractmethod
    def _remember(self, table: Examples, last: Tensor, groups: Tensor) -> None:
        """``last`` are the rows of the last examples of the groups that are full, ``groups`` these groups."""
