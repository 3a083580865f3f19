"""Chunk files: what is written is read back, and what belongs elsewhere is refused."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from extraction_assets.engine.select import sample_maxima, select_top_k
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets.engine.sparse import dense_to_sparse, to_rows
from extraction_assets.engine.statistics import feature_statistics
from extraction_assets.stores import chunk_files
from extraction_assets.stores.sealed import DamagedFileError
from extraction_assets_tests.engine.build import assert_same

RECORD = {"fingerprint": "abc", "numerics": {}, "checks": {}}


@pytest.fixture
def features() -> SparseFeatures:
    torch.manual_seed(0)
    return dense_to_sparse(torch.randn(4, 6, 9).relu())


def _write_table(path: Path, features: SparseFeatures) -> None:
    maxima, counted = sample_maxima(features), torch.ones(4, 6, dtype=torch.bool)
    table = select_top_k(features, maxima, 100, 3)
    chunk_files.write_table(path, table, feature_statistics(features, maxima, counted), RECORD)


def test_a_table_comes_back_equal(tmp_path: Path, features: SparseFeatures) -> None:
    _write_table(tmp_path / "t.parquet", features)
    stored = chunk_files.read_table(tmp_path / "t.parquet", "abc")
    maxima = sample_maxima(features)
    expected = select_top_k(features, maxima, 100, 3)
    assert all(torch.equal(a, b) for a, b in zip(stored.table, expected, strict=True))
    statistics = feature_statistics(features, maxima, torch.ones(4, 6, dtype=torch.bool))
    for a, b in zip(stored.statistics, statistics, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_a_table_without_examples_comes_back_equal(tmp_path: Path) -> None:
    nothing = dense_to_sparse(torch.zeros(4, 6, 9))
    _write_table(tmp_path / "t.parquet", nothing)
    assert len(chunk_files.read_table(tmp_path / "t.parquet", "abc").table.neuron_index) == 0


def test_a_table_is_plain_parquet_for_other_tools(tmp_path: Path, features: SparseFeatures) -> None:
    _write_table(tmp_path / "t.parquet", features)
    frame = pq.read_table(tmp_path / "t.parquet").to_pandas()
    columns = ["neuron_index", "rank", "sample_index", "max_activation", "positions", "activations"]
    assert list(frame.columns) == columns
    assert frame["rank"].max() == 2
    assert (frame["activations"].str[0] == frame["max_activation"]).all()


def test_features_come_back_equal(tmp_path: Path, features: SparseFeatures) -> None:
    chunk_files.write_features(tmp_path / "f.safetensors", to_rows(features), RECORD)
    stored, _ = chunk_files.read_features(tmp_path / "f.safetensors", "abc")
    assert_same(stored, to_rows(features))


def test_activations_keep_their_dtype(tmp_path: Path) -> None:
    tensor = torch.randn(2, 3, 4).bfloat16()
    chunk_files.write_activations(tmp_path / "a.safetensors", {"layers.0": tensor}, RECORD)
    stored, record = chunk_files.read_activations(tmp_path / "a.safetensors", "abc")
    assert torch.equal(stored["layers.0"], tensor)
    assert record["fingerprint"] == "abc"


def test_every_file_has_the_permissions_of_a_new_file(tmp_path: Path, features: SparseFeatures) -> None:
    chunk_files.write_features(tmp_path / "f.safetensors", to_rows(features), RECORD)
    _write_table(tmp_path / "t.parquet", features)
    (tmp_path / "new").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_file_of_another_fingerprint_is_refused(tmp_path: Path, features: SparseFeatures) -> None:
    chunk_files.write_features(tmp_path / "f.safetensors", to_rows(features), RECORD)
    with pytest.raises(DamagedFileError, match="made from other inputs: it carries fingerprint abc, expected xyz"):
        chunk_files.read_features(tmp_path / "f.safetensors", "xyz")


def test_a_table_whose_statistics_are_gone_is_refused(tmp_path: Path, features: SparseFeatures) -> None:
    _write_table(tmp_path / "t.parquet", features)
    next(tmp_path.glob("*.statistics.safetensors")).unlink()
    with pytest.raises(DamagedFileError, match="lacks its statistics"):
        chunk_files.read_table(tmp_path / "t.parquet", "abc")


def test_equal_content_gives_equal_bytes(tmp_path: Path, features: SparseFeatures) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _write_table(tmp_path / name / "t.parquet", features)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
