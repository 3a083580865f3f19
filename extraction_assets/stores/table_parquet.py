"""Examples as Parquet: top-k tables, and the draws beside them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from extraction_assets.engine.selection.deferred import of_features
from extraction_assets.engine.selection.merge import ranks_of_rows
from extraction_assets.engine.shapes import Draws, TopKTable
from extraction_assets.stores.chunk_record import RECORD_FIELD, Record, record_json, refusing
from extraction_assets.stores.sealed import write_sealed

# Whole numbers as differences, LZ4: a third of the time to write and half of that to read of Parquet's defaults with
# zstd, and no larger.
_DIFFERENCES = ("neuron_index", "rank", "interval", "sample_index", "positions.list.element")
_ROW_GROUP_EXAMPLES = 2**21
_ROW_GROUP_FEATURES = 2**14
"""A row group has the examples of so many features, or fewer where they are more than ``_ROW_GROUP_EXAMPLES``. So a
range of many features needs little more than its own, and the table of 16,384 features is one group: of several, all
are copied once more when they are read as one, and writing 25 takes twice the time."""
_TABLE_COLUMNS = ["neuron_index", "sample_index", "max_activation", "positions", "activations"]
_DRAW_COLUMNS = ["neuron_index", "interval", "sample_index", "max_activation", "positions", "activations"]


def write_table_parquet(
    path: Path,
    table: TopKTable,
    num_features: int,
    record: Record,
    before_rename: Callable[[], object] | None = None,
) -> str:
    """The checksum of the file, which gets its name after ``before_rename``."""
    neurons = table.neuron_index.numpy()

    def columns(rows: slice) -> dict[str, Any]:
        rank = ranks_of_rows(neurons, rows)
        return {"neuron_index": neurons[rows], "rank": rank, **_example_columns(table, rows)}

    return _write(path, columns, len(neurons), num_features, record, before_rename)


def read_table_parquet(path: Path, features: range | None = None) -> TopKTable:
    """A table in a file that has been checked, or its examples of a range of features, from the row groups that hold
    some. Shares the memory of columns that are in one piece."""
    with refusing(path):
        columns = _read(path, _TABLE_COLUMNS, features)
        table = TopKTable(torch.from_dlpack(columns["neuron_index"]), *_example_tensors(columns))
        return table if features is None else of_features(table, features)


def write_draws_parquet(path: Path, draws: Draws, record: Record) -> str:
    """The checksum of the file."""
    neurons, intervals = draws.neuron_index.numpy(), draws.interval.numpy()

    def columns(rows: slice) -> dict[str, Any]:
        interval = intervals[rows].astype(np.int32)
        return {"neuron_index": neurons[rows], "interval": interval, **_example_columns(draws, rows)}

    return _write(path, columns, len(neurons), int(record["num_features"]), record)


def read_draws_parquet(path: Path, features: range | None = None) -> Draws:
    """Draws in a file that has been checked, or those of a range of features."""
    with refusing(path):
        columns = _read(path, _DRAW_COLUMNS, features)
        interval = torch.from_numpy(columns["interval"].to_numpy().astype(np.int64))
        draws = Draws(torch.from_dlpack(columns["neuron_index"]), interval, *_example_tensors(columns))
        return draws if features is None else of_features(draws, features)


def _example_columns(examples: TopKTable | Draws, rows: slice) -> dict[str, Any]:
    offsets = examples.firing_offsets[rows.start : rows.stop + 1]
    firings = slice(int(offsets[0]), int(offsets[-1]))
    lists = pa.array((offsets - offsets[0]).numpy())
    return {
        "sample_index": examples.sample_index[rows].numpy(),
        "max_activation": examples.max_activation[rows].numpy(),
        "positions": pa.LargeListArray.from_arrays(lists, examples.positions[firings].numpy().astype(np.int32)),
        "activations": pa.LargeListArray.from_arrays(lists, examples.activations[firings].numpy()),
    }


def _example_tensors(columns: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    positions = columns["positions"]
    return (
        torch.from_dlpack(columns["sample_index"]),
        torch.from_dlpack(columns["max_activation"]),
        torch.from_numpy(positions.offsets.to_numpy().astype(np.int64)),
        torch.from_numpy(positions.values.to_numpy().astype(np.int64)),
        torch.from_dlpack(columns["activations"].values),
    )


def _write(
    path: Path,
    columns: Callable[[slice], dict[str, Any]],
    examples: int,
    num_features: int,
    record: Record,
    before_rename: Callable[[], object] | None = None,
) -> str:
    """Writes the ``columns`` of some examples after the other, each time a row group."""
    of_so_many = -(-examples * _ROW_GROUP_FEATURES // max(1, num_features))
    size = max(1, min(_ROW_GROUP_EXAMPLES, of_so_many))
    schema = pa.table(columns(slice(0, 0))).schema
    encoding = {name: "DELTA_BINARY_PACKED" for name in _DIFFERENCES if name.split(".")[0] in schema.names}
    options: dict[str, Any] = {"store_schema": False, "compression": "lz4", "use_dictionary": False}

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, column_encoding=encoding, **options) as writer:
            for first in range(0, max(1, examples), size):
                rows = slice(first, min(first + size, examples))
                writer.write_table(pa.table(columns(rows)), row_group_size=size)
            writer.add_key_value_metadata({RECORD_FIELD: record_json(record)})

    return write_sealed(path, write, before_rename)


def _read(path: Path, names: list[str], features: range | None) -> dict[str, Any]:
    with pq.ParquetFile(path) as file:
        groups = range(file.num_row_groups) if features is None else _groups_of(file.metadata, features)
        arrow = file.read_row_groups(list(groups), names)
        return {name: _one_piece(arrow[name]) for name in names}


def _groups_of(metadata: pq.FileMetaData, features: range) -> Iterator[int]:
    """The row groups that may hold examples of some features."""
    for number in range(metadata.num_row_groups):
        found = metadata.row_group(number).column(0).statistics  # of neuron_index
        if found is None or not found.has_min_max or (found.min < features.stop and features.start <= found.max):
            yield number


def _one_piece(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
