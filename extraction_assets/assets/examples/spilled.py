"""A merge by ranges of features, whose results are put on disk: what is not worked on takes no memory."""

import contextlib
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from extraction_assets.assets.examples.expected import Expected
from extraction_assets.assets.examples.merging import Merged, TooLargeError
from extraction_assets.engine.selection.shards import equal_ranges
from extraction_assets.engine.shapes import Draws, TopKTable
from extraction_assets.engine.statistics.registry import STATISTICS, FeatureStatistics
from extraction_assets.stores.chunk_files import FeaturePart
from extraction_assets.stores.scratch import Scratch

Examples = TypeVar("Examples", TopKTable, Draws)


MERGE_BYTES = 2 << 30
"""What a merge holds of examples, draws and statistics, at most: a range of features that comes to more is merged in
smaller ones. Beside it are the tables that are read ahead (``chunk_files.PREFETCHED_BYTES``) and what compacting takes,
some 100 bytes for each of a million examples a thread."""

_LOOKED_AT = 64
"""One feature in so many is looked at to foresee what all hold."""

MergePart = Callable[[FeaturePart | None, int | None], Merged]
"""Merges a range of features, or with None all; raises TooLargeError where that comes to more bytes than given."""

ExpectPart = Callable[[FeaturePart], int]
"""Bytes that a merge of a range of features is to be expected to hold."""


def merge_by_ranges(
    merge: MergePart,
    expect: ExpectPart,
    features: int,
    root: Path,
    several_passes: AbstractContextManager[None] | None = None,
) -> Merged:
    """All ``features`` as one: at once where that fits into ``MERGE_BYTES`` (or where their number is not known, 0),
    else one range after the other, inside ``several_passes``, and then what is merged lies in files below ``root``,
    mapped. The same in either case, to the bit."""
    ranges = 1 if features < _LOOKED_AT else _ranges_needed(expect, features)
    if ranges == 1:
        try:
            return merge(None, MERGE_BYTES if features > 1 else None)
        except TooLargeError:
            ranges = 2
    with contextlib.closing(Scratch(root)) as scratch, several_passes or contextlib.nullcontext():
        parts, rest = SpilledParts(scratch.path), deque(equal_ranges(range(features), ranges))
        while rest:
            one = rest.popleft()
            try:
                merged = merge(FeaturePart(one, features), MERGE_BYTES if len(one) > 1 else None)
            except TooLargeError:
                rest.extendleft(reversed(equal_ranges(one, 2)))
                continue
            parts.add(merged)
            del merged  # before the next one begins
        return parts.joined()


def _ranges_needed(expect: ExpectPart, features: int) -> int:
    part = FeaturePart(range(features // _LOOKED_AT), features)
    return -(-expect(part) * features // len(part.features) // max(1, MERGE_BYTES)) or 1


class SpilledParts:
    """The merges of consecutive ranges of features, written one behind the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns: dict[str, _Column] = {}
        self._first: Merged | None = None
        self._expected: dict[int, Expected] = {}

    def add(self, part: Merged) -> None:
        """The next range of features."""
        self._append("table", part.table)
        if part.draws is not None:
            self._append("draws", part.draws)
        for one in STATISTICS:
            tensor = getattr(part.statistics, one.name)
            if tensor is not None:
                self._column(f"statistics.{one.name}", tensor).append(tensor)
        self._expected |= part.expected
        if self._first is None:  # what is the same in every part
            self._first = part._replace(table=_none_of(part.table), draws=part.draws and _none_of(part.draws))

    def joined(self) -> Merged:
        """All parts as one, whose tensors are the files: mapped, so that they are read when they are looked at. The
        files lose their names here, and their disk once the tensors are gone."""
        assert self._first is not None, "an SAE has features"
        tensors = {name: column.mapped() for name, column in self._columns.items()}
        statistics: dict[str, Any] = {one.name: tensors.get(f"statistics.{one.name}") for one in STATISTICS}
        seen = self._first.statistics
        return Merged(
            TopKTable(*(tensors[f"table.{name}"] for name in TopKTable._fields)),
            FeatureStatistics(**statistics, samples_seen=seen.samples_seen, tokens_seen=seen.tokens_seen),
            self._first.numerics,
            self._expected,
            self._first.draws and Draws(*(tensors[f"draws.{name}"] for name in Draws._fields)),
        )

    def _append(self, kind: str, examples: TopKTable | Draws) -> None:
        for name, tensor in examples._asdict().items():
            column = self._column(f"{kind}.{name}", tensor)
            if name == "firing_offsets" and column.rows:  # its place is before the firings that it counts
                tensor = tensor[1:] + self._columns[f"{kind}.positions"].rows
            column.append(tensor)

    def _column(self, name: str, tensor: Tensor) -> "_Column":
        if name not in self._columns:
            self._columns[name] = _Column(self._folder / name, tensor)
        return self._columns[name]


class _Column:
    """A tensor that grows along its first dimension, in a file."""

    def __init__(self, path: Path, like: Tensor) -> None:
        self._path, self._dtype, self._shape = path, like.numpy().dtype, tuple(like.shape[1:])
        self.rows = 0

    def append(self, tensor: Tensor) -> None:
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(tensor.numpy()).data.cast("B"))
        self.rows += len(tensor)

    def mapped(self) -> Tensor:
        shape = (self.rows, *self._shape)
        if not self.rows:
            return torch.from_numpy(np.zeros(shape, self._dtype))
        mapped = np.memmap(self._path, self._dtype, "r+", shape=shape)
        self._path.unlink()
        return torch.from_numpy(mapped)


def _none_of(examples: Examples) -> Examples:
    """The columns without what they hold."""
    return examples._replace(**{name: column[:0] for name, column in examples._asdict().items()})
