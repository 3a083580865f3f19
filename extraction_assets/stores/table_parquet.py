"""Examples as Parquet: top-k tables, and the draws beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from extraction_assets.engine.selection.merge import ranks
from extraction_assets.engine.shapes import Draws, TopKTable
from extraction_assets.stores.chunk_record import RECORD_FIELD, Record, record_json, refusing
from extraction_assets.stores.sealed import write_sealed

# Whole numbers as differences, LZ4: a third of the time to write and half of that to read of Parquet's defaults with
# zstd, and no larger.
_DIFFERENCES = ("neuron_index", "rank", "interval", "sample_index", "positions.list.element")
_ROW_GROUP_EXAMPLES = 2**24
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
    rank = ranks(table, num_features).numpy().astype(np.int32)
    columns = {"neuron_index": table.neuron_index.numpy(), "rank": rank, **_example_columns(table)}
    return _write(path, columns, record, before_rename)


def read_table_parquet(path: Path) -> TopKTable:
    """A table in a file that has been checked. Shares the memory of columns that are in one piece, as they are in files
    of this version."""
    with refusing(path):
        columns = _read(path, _TABLE_COLUMNS)
        return TopKTable(torch.from_dlpack(columns["neuron_index"]), *_example_tensors(columns))


def write_draws_parquet(path: Path, draws: Draws, record: Record) -> str:
    """The checksum of the file."""
    interval = draws.interval.numpy().astype(np.int32)
    columns = {"neuron_index": draws.neuron_index.numpy(), "interval": interval, **_example_columns(draws)}
    return _write(path, columns, record)


def read_draws_parquet(path: Path) -> Draws:
    """Draws in a file that has been checked."""
    with refusing(path):
        columns = _read(path, _DRAW_COLUMNS)
        interval = torch.from_numpy(columns["interval"].to_numpy().astype(np.int64))
        return Draws(torch.from_dlpack(columns["neuron_index"]), interval, *_example_tensors(columns))


def _example_columns(examples: TopKTable | Draws) -> dict[str, Any]:
    offsets = pa.array(examples.firing_offsets.numpy())
    return {
        "sample_index": examples.sample_index.numpy(),
        "max_activation": examples.max_activation.numpy(),
        "positions": pa.LargeListArray.from_arrays(offsets, examples.positions.numpy().astype(np.int32)),
        "activations": pa.LargeListArray.from_arrays(offsets, examples.activations.numpy()),
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
    path: Path, columns: dict[str, Any], record: Record, before_rename: Callable[[], object] | None = None
) -> str:
    arrow = pa.table(columns)
    encoding = {name: "DELTA_BINARY_PACKED" for name in _DIFFERENCES if name.split(".")[0] in columns}
    options: dict[str, Any] = {"store_schema": False, "compression": "lz4", "use_dictionary": False}

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, arrow.schema, column_encoding=encoding, **options) as writer:
            writer.write_table(arrow, row_group_size=_ROW_GROUP_EXAMPLES)
            writer.add_key_value_metadata({RECORD_FIELD: record_json(record)})

    return write_sealed(path, write, before_rename)


def _read(path: Path, names: list[str]) -> dict[str, Any]:
    with pq.ParquetFile(path) as file:
        arrow = file.read(names)
        return {name: _one_piece(arrow[name]) for name in names}


def _one_piece(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
