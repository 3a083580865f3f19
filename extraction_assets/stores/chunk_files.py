"""The files of one chunk: model activations, SAE features, top-k table with its statistics.

Every file carries a record (JSON) with its fingerprint and, as ``numerics``, what can change its last bits.
"""

import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from extraction_assets.engine.selection.merge import ranks
from extraction_assets.engine.selection.statistics.descriptions import STATISTICS, FeatureStatistics
from extraction_assets.engine.shapes import FeatureRows, TopKTable
from extraction_assets.stores.chunk_names import statistics_path
from extraction_assets.stores.chunk_record import (
    RECORD_FIELD,
    Record,
    expect_fingerprint,
    read_checked_record,
    read_record,
    record_json,
    refusing,
)
from extraction_assets.stores.chunk_shapes import (
    ROW_TENSORS,
    check_table,
    checked_rows,
    checked_statistics,
)
from extraction_assets.stores.sealed import damaged, set_aside, verify, write_sealed
from extraction_assets.stores.table_statistics import as_damage_of, named_statistics

# Whole numbers as differences, LZ4: a third of the time to write and half of that to read of Parquet's defaults with
# zstd, and no larger.
_PARQUET_OPTIONS: dict[str, Any] = {
    "store_schema": False,
    "compression": "lz4",
    "use_dictionary": False,
    "column_encoding": dict.fromkeys(
        ("neuron_index", "rank", "sample_index", "positions.list.element"), "DELTA_BINARY_PACKED"
    ),
}
_ROW_GROUP_EXAMPLES = 2**24
_COLUMNS = ["neuron_index", "sample_index", "max_activation", "positions", "activations"]

PREFETCHED_TABLES = 3
"""Tables that are read and checked ahead of their use."""


class TableFile(NamedTuple):
    """A chunk's stored table with its statistics and its record."""

    table: TopKTable
    statistics: FeatureStatistics
    record: Record


def write_activations(path: Path, activations: dict[str, Tensor], record: Record) -> None:
    """Hook outputs {hook: [n, T, D]} in the model's dtype, as safetensors."""
    _write_safetensors(path, activations, record)


def read_activations(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], Record]:
    """{hook: [n, T, D]}, memory-mapped, and their record, after checking the file."""
    tensors, record, _ = _read_safetensors(path, fingerprint)
    return tensors, record


def write_features(path: Path, features: FeatureRows, record: Record) -> None:
    """Features at all non-padding positions in compressed rows, as safetensors: ``row_pointers`` int64 [n * T + 1],
    ``feature_ids`` int32 [Z], ``values`` float32 [Z]."""
    shape = [features.num_samples, features.num_positions, features.num_features]
    tensors = {name: getattr(features, name) for name in ROW_TENSORS}
    _write_safetensors(path, tensors, {**record, "shape": shape})


def read_features(path: Path, fingerprint: str) -> tuple[FeatureRows, Record]:
    """The stored features, memory-mapped, and their record, after checking the file."""
    tensors, record, _ = _read_safetensors(path, fingerprint)
    return checked_rows(path, tensors, record.get("shape")), record


def write_table(path: Path, table: TopKTable, statistics: FeatureStatistics, record: Record) -> None:
    """A top-k table as Parquet, its statistics beside it; the table comes last, so if it exists, both do.

    The file name of the statistics holds their checksum, so that two runs on one chunk cannot mix their files.
    """
    counts = {"samples_seen": statistics.samples_seen, "tokens_seen": statistics.tokens_seen}
    num_features = len(statistics.sample_count)
    tensors = {one.name: tensor for one in STATISTICS if (tensor := getattr(statistics, one.name)) is not None}
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    checksum = _write_safetensors(draft, tensors, {**record, **counts})
    beside = statistics_path(path, checksum)
    if beside.is_dir():  # a folder in their place
        set_aside(beside)
    draft.rename(beside)
    full = {**record, **counts, "statistics": checksum, "num_features": num_features}
    write_sealed(path, lambda temporary: _write_parquet(temporary, _table_to_arrow(table, num_features), full))


def read_table(path: Path, fingerprint: str) -> TableFile:
    """The stored table of a chunk, its statistics and its record, after checking both files."""
    record = read_checked_record(path, fingerprint)
    statistics = _read_statistics(path, record)
    with refusing(path), pq.ParquetFile(path) as file:
        table = _table_from_arrow(file.read(_COLUMNS))
    check_table(path, table, len(statistics.sample_count))
    return TableFile(table, statistics, record)


def check_files(path: Path, fingerprint: str) -> None:
    """Reads every byte of a chunk file, and of a table's statistics. Raises DamagedFileError if bytes have changed,
    FileNotFoundError if the file was removed."""
    record = read_checked_record(path, fingerprint)
    if path.suffix == ".parquet":
        _read_statistics(path, record)


def read_statistics(path: Path) -> tuple[FeatureStatistics, int]:
    """The statistics beside a table that has been checked, and the table's number of examples."""
    with refusing(path):
        examples = int(pq.read_metadata(path).num_rows)
    return _read_statistics(path, read_record(path)), examples


def _read_statistics(table: Path, record: Record) -> FeatureStatistics:
    """The statistics that a table names."""
    checksum = named_statistics(table, record)
    path = statistics_path(table, checksum)
    with as_damage_of(table, path):
        tensors, _, found = _read_safetensors(path, str(record["fingerprint"]))
        if found != checksum:
            raise damaged(path, "it is not the file that its table names")
        return checked_statistics(path, tensors, record)


def read_tables(files: Iterable[tuple[Path, str]]) -> Iterator[TableFile]:
    """The tables of files with their fingerprints, in their order; ``read_table`` in threads, a few tables ahead.

    At most ``PREFETCHED_TABLES + 1`` tables are in memory, if the caller keeps only the last one.
    """
    pending: deque[Future[TableFile]] = deque()
    with ThreadPoolExecutor(PREFETCHED_TABLES, thread_name_prefix="table reader") as pool:
        try:
            for path, fingerprint in files:
                if len(pending) == PREFETCHED_TABLES:
                    yield pending.popleft().result()
                pending.append(pool.submit(read_table, path, fingerprint))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _write_parquet(path: Path, arrow: pa.Table, record: Record) -> None:
    with pq.ParquetWriter(path, arrow.schema, **_PARQUET_OPTIONS) as writer:
        writer.write_table(arrow, row_group_size=_ROW_GROUP_EXAMPLES)
        writer.add_key_value_metadata({RECORD_FIELD: record_json(record)})


def _table_to_arrow(table: TopKTable, num_features: int) -> pa.Table:
    offsets = pa.array(table.firing_offsets.numpy())
    return pa.table(
        {
            "neuron_index": table.neuron_index.numpy(),
            "rank": ranks(table, num_features).numpy().astype(np.int32),
            "sample_index": table.sample_index.numpy(),
            "max_activation": table.max_activation.numpy(),
            "positions": pa.LargeListArray.from_arrays(offsets, table.positions.numpy().astype(np.int32)),
            "activations": pa.LargeListArray.from_arrays(offsets, table.activations.numpy()),
        }
    )


def _table_from_arrow(arrow: pa.Table) -> TopKTable:
    """Shares the memory of columns that are in one piece, as they are in files of this version."""
    neurons, samples, strongest, positions, activations = (_one_piece(arrow[name]) for name in _COLUMNS)
    return TopKTable(
        torch.from_dlpack(neurons),
        torch.from_dlpack(samples),
        torch.from_dlpack(strongest),
        torch.from_numpy(positions.offsets.to_numpy().astype(np.int64)),
        torch.from_numpy(positions.values.to_numpy().astype(np.int64)),
        torch.from_dlpack(activations.values),
    )


def _one_piece(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _write_safetensors(path: Path, tensors: dict[str, Tensor], record: Record) -> str:
    """One metadata entry alone: safetensors writes several in no fixed order."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {RECORD_FIELD: record_json(record)}
    try:
        return write_sealed(path, lambda temporary: save_file(contiguous, temporary, metadata=metadata))
    except SafetensorError as error:  # an error of the disk, such as a full one
        raise OSError(f"{path} cannot be written: {error}") from error


def _read_safetensors(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], Record, str]:
    """The tensors of a file, its record and its checksum, after checking it."""
    checksum = verify(path)
    record = read_record(path)
    expect_fingerprint(path, record, fingerprint)
    with refusing(path):
        return load_file(path), record, checksum
