"""Chunk files that are cut, altered, hostile or swapped: one sentence with the file's name, and nothing believed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from extraction_assets.engine.selection.select import sample_maxima, select_top_k
from extraction_assets.engine.selection.sparse import dense_to_sparse, to_rows
from extraction_assets.engine.statistics.accumulate import feature_statistics
from extraction_assets.stores import chunk_files
from extraction_assets.stores.chunk_record import RECORD_FIELD, read_checked_record, read_record, record_json
from extraction_assets.stores.sealed import DamagedFileError, write_sealed
from extraction_assets_tests.stores.build import HOSTILE, flipped

RECORD = {"fingerprint": "abc", "numerics": {}, "checks": {}}


def _features() -> Any:
    torch.manual_seed(0)
    return dense_to_sparse(torch.randn(2, 3, 5).relu())


def _write_table(path: Path, record: dict[str, Any] = RECORD) -> Path:
    features = _features()
    maxima, counted = sample_maxima(features), torch.ones(2, 3, dtype=torch.bool)
    table = select_top_k(features, maxima, 100, 3)
    chunk_files.write_table(path, table, feature_statistics(features, maxima, counted), record)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return _write_table(tmp_path / "t.parquet")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    chunk_files.write_features(tmp_path / "f.safetensors", [to_rows(_features())], RECORD)
    return tmp_path / "f.safetensors"


def _refused(read: Callable[[], Any], name: str) -> str:
    with pytest.raises(DamagedFileError) as caught:
        read()
    message = str(caught.value)
    assert name in message
    assert len(message.splitlines()) == 1
    return message


def _seal(path: Path, tensors: dict[str, Any], record: Any) -> None:
    """A safetensors file that is sealed as it should be, whatever it holds."""
    text = record if isinstance(record, str) else record_json(record)
    write_sealed(path, lambda temporary: save_file(tensors, temporary, metadata={RECORD_FIELD: text}))


def test_every_altered_byte_of_a_table_is_found(table: Path) -> None:
    for wrong in flipped(table.read_bytes()):
        table.write_bytes(wrong)
        with pytest.raises(DamagedFileError):
            chunk_files.read_table(table, "abc")


@pytest.mark.parametrize("name", ["t.parquet", "f.safetensors"])
def test_no_altered_byte_of_header_or_footer_is_a_raw_error(table: Path, rows: Path, name: str) -> None:
    """The record alone, which is looked at without reading the whole file."""
    path = table.with_name(name)
    for wrong in flipped(path.read_bytes()):
        path.write_bytes(wrong)
        try:
            read_record(path)
        except DamagedFileError as error:
            assert name in str(error)  # noqa: PT017 - either outcome is right, a third is not


@pytest.mark.parametrize("name", ["t.parquet", "f.safetensors"])
def test_no_cut_of_header_or_footer_is_a_raw_error(table: Path, rows: Path, name: str) -> None:
    path = table.with_name(name)
    right = path.read_bytes()
    for length in range(0, len(right), 3):
        path.write_bytes(right[:length])
        _refused(lambda: read_record(path), name)


@pytest.mark.parametrize("leave", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["t.parquet", "f.safetensors"])
def test_whatever_lies_in_the_place_of_a_chunk_file_is_one_sentence(
    table: Path, rows: Path, name: str, leave: Callable[[Path], Any]
) -> None:
    path = table.with_name(name)
    path.unlink()
    leave(path)
    _refused(lambda: read_record(path), name)
    if leave is not HOSTILE["a huge file"]:
        _refused(lambda: read_checked_record(path, "abc"), name)


@pytest.mark.parametrize("record", ["[]", "3", "{", "[" * 200_000, '{"fingerprint": ["abc"]}', "{}"])
def test_a_record_that_is_none_is_one_sentence(tmp_path: Path, record: str) -> None:
    from extraction_assets.stores.sealed import PLACEHOLDER

    path = tmp_path / "f.safetensors"
    metadata = {RECORD_FIELD: record, "seal": PLACEHOLDER}
    write_sealed(path, lambda temporary: save_file({"values": torch.zeros(1)}, temporary, metadata=metadata))
    _refused(lambda: chunk_files.read_features(path, "abc"), path.name)


@pytest.mark.parametrize(
    "shape", [None, 3, [2, 3], [2, 3, 5, 1], [2, 4, 5], [-2, -3, 5], [2.0, 3, 5], "2,3,5", [True, 6, 5], [0, 0, 0]]
)
def test_features_that_are_not_of_the_shape_in_their_record_are_refused(rows: Path, shape: Any) -> None:
    tensors = {name: one.clone() for name, one in load_file(rows).items()}
    _seal(rows, tensors, {**RECORD, "shape": shape})
    _refused(lambda: chunk_files.read_features(rows, "abc"), rows.name)


@pytest.mark.parametrize(
    "change",
    [
        {"values": torch.zeros(3)},
        {"values": torch.zeros(100, dtype=torch.float64)},
        {"row_pointers": torch.zeros(7, dtype=torch.int64)},
        {"row_pointers": torch.tensor(3)},
        {"others": torch.zeros(1)},
    ],
    ids=range(5),
)
def test_features_whose_tensors_do_not_belong_together_are_refused(rows: Path, change: dict[str, Any]) -> None:
    tensors = {name: one.clone() for name, one in load_file(rows).items()}
    _seal(rows, {**tensors, **change}, {**RECORD, "shape": [2, 3, 5]})
    _refused(lambda: chunk_files.read_features(rows, "abc"), rows.name)


def test_statistics_of_another_table_are_refused(table: Path, tmp_path: Path) -> None:
    """They carry the right fingerprint and a right checksum, but not the one that the table names."""
    (own,) = tmp_path.glob("t.*.statistics.safetensors")
    other = _write_table(tmp_path / "other" / "t.parquet", {**RECORD, "numerics": {"device": "another"}})
    (theirs,) = other.parent.glob("t.*.statistics.safetensors")
    own.write_bytes(theirs.read_bytes())
    assert "not the file that its table names" in _refused(lambda: chunk_files.read_table(table, "abc"), own.name)


def test_damaged_statistics_are_the_tables_damage(table: Path, tmp_path: Path) -> None:
    (own,) = tmp_path.glob("t.*.statistics.safetensors")
    own.write_bytes(own.read_bytes()[:-1])
    with pytest.raises(DamagedFileError) as caught:
        chunk_files.check_files(table, "abc")
    assert caught.value.path == table
    assert own.name in str(caught.value)


@pytest.mark.parametrize(
    "content", [{}, {"neuron_index": pa.array(["a"])}, {"neuron_index": pa.array([7], pa.int64())}], ids=range(3)
)
def test_a_sealed_table_of_other_columns_is_one_sentence(table: Path, content: dict[str, Any]) -> None:
    record = read_record(table)
    arrow = pq.read_table(table)
    changed = (
        pa.table(content)
        if len(content) == 0
        else arrow.slice(0, 1).set_column(0, "neuron_index", content["neuron_index"])
    )

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, changed.schema, store_schema=False) as writer:
            writer.write_table(changed)
            writer.add_key_value_metadata({RECORD_FIELD: record_json(record)})

    write_sealed(table, write)
    _refused(lambda: chunk_files.read_table(table, "abc"), table.name)


def test_a_table_takes_the_place_of_folders(table: Path, tmp_path: Path) -> None:
    paths = sorted(tmp_path.glob("t.*"))
    for path in paths:
        path.unlink()
        (path / "deep").mkdir(parents=True)
    _write_table(table)
    assert len(chunk_files.read_table(table, "abc").table.neuron_index) > 0
    assert all(os.path.isfile(path) for path in paths)


def test_a_record_is_plain_json_for_other_tools(table: Path) -> None:
    assert json.loads(pq.read_schema(table).metadata[RECORD_FIELD.encode()])["fingerprint"] == "abc"
