"""The files of one chunk: model activations, SAE features, top-k table with its statistics.

Every file carries a record (JSON) with its fingerprint and, as ``numerics``, what can change its last bits.
"""

import json
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from extraction_assets.engine.heap import ranks
from extraction_assets.engine.shapes import FeatureRows, FeatureStatistics, TopKTable
from extraction_assets.stores.sealed import PLACEHOLDER, DamagedFileError, verify, write_sealed

_RECORD = "extraction_assets"
_STATISTICS_TENSORS = ("sample_count", "token_count", "max_activation", "activation_limbs", "histogram")

_ROW_TENSORS = ("row_pointers", "feature_ids", "values")
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

TABLES_AHEAD = 3
"""Tables that are read and checked before they are asked for."""

Record = dict[str, Any]


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
    return _read_safetensors(path, fingerprint)


def write_features(path: Path, features: FeatureRows, record: Record) -> None:
    """Features at all non-padding positions in compressed rows, as safetensors: ``row_pointers`` int64 [n * T + 1],
    ``feature_ids`` int32 [Z], ``values`` float32 [Z]."""
    shape = [features.num_samples, features.num_positions, features.num_features]
    tensors = {name: getattr(features, name) for name in _ROW_TENSORS}
    _write_safetensors(path, tensors, {**record, "shape": shape})


def read_features(path: Path, fingerprint: str) -> tuple[FeatureRows, Record]:
    """The stored features, memory-mapped, and their record, after checking the file."""
    tensors, record = _read_safetensors(path, fingerprint)
    pointers, features, values = (tensors[name] for name in _ROW_TENSORS)
    return FeatureRows(pointers, features, values, *record["shape"]), record


def write_table(path: Path, table: TopKTable, statistics: FeatureStatistics, record: Record) -> None:
    """A top-k table as Parquet, its statistics beside it; the table comes last, so where it is, all is.

    The statistics' file name holds their checksum, so that two runs on one chunk cannot mix their files.
    """
    counts = {"samples_seen": statistics.samples_seen, "tokens_seen": statistics.tokens_seen}
    num_features = len(statistics.sample_count)
    tensors = {name: getattr(statistics, name) for name in _STATISTICS_TENSORS}
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    checksum = _write_safetensors(draft, tensors, {**record, **counts})
    draft.rename(_statistics_path(path, checksum))
    full = {**record, **counts, "statistics": checksum, "num_features": num_features}
    write_sealed(path, lambda temporary: _write_parquet(temporary, _table_to_arrow(table, num_features), full))


def read_table(path: Path, fingerprint: str) -> TableFile:
    """The stored table of a chunk, its statistics and its record, after checking both files."""
    verify(path)
    with pq.ParquetFile(path) as file:
        record: Record = json.loads(file.metadata.metadata[_RECORD.encode()])
        arrow = file.read(_COLUMNS)
    _expect_fingerprint(path, record, fingerprint)
    statistics_path = _statistics_path(path, record["statistics"])
    if not statistics_path.is_file():
        raise DamagedFileError(f"{path} lacks its statistics {statistics_path.name}: materialize its chunk again")
    tensors, _ = _read_safetensors(statistics_path, fingerprint)
    statistics = FeatureStatistics(**tensors, samples_seen=record["samples_seen"], tokens_seen=record["tokens_seen"])
    return TableFile(_table_from_arrow(arrow), statistics, record)


def read_tables(files: Iterable[tuple[Path, str]]) -> Iterator[TableFile]:
    """The tables of files with their fingerprints, in their order; ``read_table`` in threads, a few tables ahead.

    At most ``TABLES_AHEAD + 1`` tables are in memory, if the caller keeps none but the last one it was given.
    """
    pending: deque[Future[TableFile]] = deque()
    with ThreadPoolExecutor(TABLES_AHEAD, thread_name_prefix="table reader") as pool:
        try:
            for path, fingerprint in files:
                if len(pending) == TABLES_AHEAD:
                    yield pending.popleft().result()
                pending.append(pool.submit(read_table, path, fingerprint))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def read_record(path: Path) -> Record:
    """The record of a chunk file, without reading or checking the rest. DamagedFileError where there is none."""
    try:
        if path.suffix == ".parquet":
            return dict(json.loads((pq.read_schema(path).metadata or {})[_RECORD.encode()]))
        with safe_open(path, framework="pt") as file:
            return dict(json.loads(file.metadata()[_RECORD]))
    except (pa.ArrowInvalid, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise DamagedFileError(f"{path} is damaged ({error}). Delete it and materialize its chunk again") from error


def _statistics_path(table: Path, checksum: str) -> Path:
    return table.with_suffix(f".{checksum[:12]}.statistics.safetensors")


def _write_parquet(path: Path, arrow: pa.Table, record: Record) -> None:
    with pq.ParquetWriter(path, arrow.schema, **_PARQUET_OPTIONS) as writer:
        writer.write_table(arrow, row_group_size=_ROW_GROUP_EXAMPLES)
        writer.add_key_value_metadata({_RECORD: _record_json(record)})


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


def _record_json(record: Record) -> str:
    return json.dumps({**record, "checksum": PLACEHOLDER}, sort_keys=True)


def _write_safetensors(path: Path, tensors: dict[str, Tensor], record: Record) -> str:
    """One metadata entry alone: safetensors writes several in no fixed order."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {_RECORD: _record_json(record)}
    try:
        return write_sealed(path, lambda temporary: save_file(contiguous, temporary, metadata=metadata))
    except SafetensorError as error:  # what the disk said, such as that it is full
        raise OSError(f"{path} cannot be written: {error}") from error


def _read_safetensors(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], Record]:
    verify(path)
    record = read_record(path)
    _expect_fingerprint(path, record, fingerprint)
    return load_file(path), record


def _expect_fingerprint(path: Path, record: Record, fingerprint: str) -> None:
    if record.get("fingerprint") != fingerprint:
        raise DamagedFileError(
            f"{path} was made from other inputs: it carries fingerprint {record.get('fingerprint')}, "
            f"expected {fingerprint}. Delete it and materialize its chunk again"
        )
