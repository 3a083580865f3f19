"""Chunk files: what is written is read back, and what belongs elsewhere is refused."""

import time
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from extraction_assets.engine.selection.deferred import of_features
from extraction_assets.engine.selection.select import sample_maxima, select_top_k
from extraction_assets.engine.selection.sparse import dense_to_sparse, to_rows
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets.engine.statistics.accumulate import feature_statistics
from extraction_assets.engine.statistics.registry import STATISTICS
from extraction_assets.stores import chunk_files, sparse_statistics, table_parquet
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


def test_a_table_in_several_pieces_comes_back_equal(
    tmp_path: Path, features: SparseFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_table(tmp_path / "one.parquet", features)
    monkeypatch.setattr(table_parquet, "_ROW_GROUP_EXAMPLES", 4)
    _write_table(tmp_path / "many.parquet", features)
    assert pq.ParquetFile(tmp_path / "many.parquet").num_row_groups > 2
    one, many = (chunk_files.read_table(tmp_path / f"{name}.parquet", "abc").table for name in ("one", "many"))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("group", [1, 4, 2**16])
@pytest.mark.parametrize("wanted", [range(9), range(3), range(2, 7), range(8, 9), range(4, 4)])
def test_a_range_of_features_is_what_the_whole_table_says_of_it(
    tmp_path: Path, features: SparseFeatures, monkeypatch: pytest.MonkeyPatch, group: int, wanted: range
) -> None:
    monkeypatch.setattr(table_parquet, "_ROW_GROUP_EXAMPLES", group)
    monkeypatch.setattr(sparse_statistics, "_ROWS_AT_ONCE", 2)
    _write_table(tmp_path / "t.parquet", features)
    whole = chunk_files.read_table(tmp_path / "t.parquet", "abc")
    part = chunk_files.read_table(tmp_path / "t.parquet", "abc", wanted)
    assert_same(part.table, of_features(whole.table, wanted))
    own = slice(wanted.start, wanted.stop)
    counts = {one.name: getattr(whole.statistics, one.name)[own] for one in STATISTICS}
    assert_same(part.statistics, whole.statistics._replace(**counts))
    assert part.record == whole.record


@pytest.mark.parametrize(("least", "groups"), [(9, 1), (3, 3), (1, 9)])
def test_a_row_group_has_the_examples_of_some_features(
    tmp_path: Path, features: SparseFeatures, monkeypatch: pytest.MonkeyPatch, least: int, groups: int
) -> None:
    monkeypatch.setattr(table_parquet, "_ROW_GROUP_FEATURES", least)
    _write_table(tmp_path / "t.parquet", features)
    assert pq.read_metadata(tmp_path / "t.parquet").num_row_groups == groups


def test_of_a_range_of_features_few_row_groups_are_read(
    tmp_path: Path, features: SparseFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_parquet, "_ROW_GROUP_EXAMPLES", 2)
    _write_table(tmp_path / "t.parquet", features)
    neurons = pq.read_table(tmp_path / "t.parquet")["neuron_index"].to_pylist()
    holding = {row // 2 for row, feature in enumerate(neurons) if feature == 4}
    metadata = pq.read_metadata(tmp_path / "t.parquet")
    assert holding == set(table_parquet._groups_of(metadata, range(4, 5)))
    assert len(holding) < metadata.num_row_groups


def test_damage_is_found_whichever_range_of_features_is_read_first(tmp_path: Path, features: SparseFeatures) -> None:
    _write_table(tmp_path / "t.parquet", features)
    (path,) = tmp_path.glob("*.statistics.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedFileError, match="its bytes do not match its checksum") as error:
        chunk_files.read_table(tmp_path / "t.parquet", "abc", range(1))
    assert error.value.path == tmp_path / "t.parquet"


def test_a_table_of_an_earlier_version_comes_back_equal(tmp_path: Path, features: SparseFeatures) -> None:
    """Earlier versions compressed with zstd, and let Parquet choose the encodings."""
    _write_table(tmp_path / "t.parquet", features)
    new = chunk_files.read_table(tmp_path / "t.parquet", "abc").table
    arrow = pq.read_table(tmp_path / "t.parquet")
    pq.write_table(arrow, tmp_path / "old.parquet", store_schema=False, compression="zstd", row_group_size=5)
    old = table_parquet.read_table_parquet(tmp_path / "old.parquet")
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(old, new, strict=True))


def test_statistics_of_an_earlier_version_lack_what_was_added_later(tmp_path: Path, features: SparseFeatures) -> None:
    maxima, counted = sample_maxima(features), torch.ones(4, 6, dtype=torch.bool)
    later = {one.name: None for one in STATISTICS if one.added_later}
    before = feature_statistics(features, maxima, counted)._replace(**later)
    chunk_files.write_table(tmp_path / "t.parquet", select_top_k(features, maxima, 100, 3), before, RECORD)
    (path,) = tmp_path.glob("*.statistics.safetensors")
    assert {name.split(".")[0] for name in load_file(path)} == {one.name for one in STATISTICS} - set(later)
    assert_same(chunk_files.read_table(tmp_path / "t.parquet", "abc").statistics, before)


def test_a_statistic_that_only_a_later_version_knows_is_left_alone(
    tmp_path: Path, features: SparseFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    maxima, counted = sample_maxima(features), torch.ones(4, 6, dtype=torch.bool)
    known = feature_statistics(features, maxima, counted)
    more: Any = SimpleNamespace(**known._asdict(), tomorrow=torch.ones(9))
    with monkeypatch.context() as later:
        later.setattr(chunk_files, "STATISTICS", (*STATISTICS, replace(STATISTICS[0], name="tomorrow")))
        chunk_files.write_table(tmp_path / "t.parquet", select_top_k(features, maxima, 100, 3), more, RECORD)
    (path,) = tmp_path.glob("*.statistics.safetensors")
    assert "tomorrow" in load_file(path)
    assert_same(chunk_files.read_table(tmp_path / "t.parquet", "abc").statistics, known)


def _files(folder: Path, features: SparseFeatures, count: int) -> list[tuple[Path, str]]:
    _write_table(folder / "t.parquet", features)
    return [(folder / "t.parquet", "abc")] * count


@pytest.mark.parametrize("count", [0, 1, 2, 9, 40])
def test_tables_are_read_ahead_but_never_many_at_once(
    tmp_path: Path, features: SparseFeatures, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    read, alive, most = chunk_files.read_table, weakref.WeakSet[torch.Tensor](), 0

    def counting(path: Path, fingerprint: str, *others: Any, **more: Any) -> chunk_files.TableFile:
        stored = read(path, fingerprint, *others, **more)
        alive.add(stored.table.sample_index)
        return stored

    monkeypatch.setattr(chunk_files, "read_table", counting)
    given = 0
    for _ in chunk_files.read_tables(_files(tmp_path, features, count)):
        deadline = time.monotonic() + 5
        while not given and len(alive) < min(count, 2) and time.monotonic() < deadline:
            time.sleep(0.001)  # on a busy machine a reader may take a while
        time.sleep(0.005)  # the readers have time to run ahead
        most = max(most, len(alive))
        given += 1
    assert given == count
    assert most <= chunk_files.PREFETCHED_TABLES + 1
    assert most > 1 or count < 2, "nothing was read ahead"


def test_tables_come_in_the_order_of_their_files(tmp_path: Path, features: SparseFeatures) -> None:
    for number in range(7):
        chunk_files.write_table(
            tmp_path / f"{number}.parquet",
            select_top_k(features, sample_maxima(features), 10 * number, 3),
            feature_statistics(features, sample_maxima(features), torch.ones(4, 6, dtype=torch.bool)),
            RECORD,
        )
    tables = chunk_files.read_tables((tmp_path / f"{number}.parquet", "abc") for number in range(7))
    assert [int(stored.table.sample_index.min()) // 10 for stored in tables] == list(range(7))


def test_a_damaged_table_among_many_is_named_and_the_rest_is_not_read(tmp_path: Path, features: SparseFeatures) -> None:
    files = _files(tmp_path, features, 3)
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(files[0][0].read_bytes()[:-40])
    tables = chunk_files.read_tables([*files, (bad, "abc"), *([(tmp_path / "absent.parquet", "abc")] * 3)])
    with pytest.raises(DamagedFileError, match=r"bad\.parquet"):
        list(tables)


def test_features_come_back_equal(tmp_path: Path, features: SparseFeatures) -> None:
    chunk_files.write_features(tmp_path / "f.safetensors", [to_rows(features)], RECORD)
    stored, _ = chunk_files.read_features(tmp_path / "f.safetensors", "abc")
    assert_same(stored, to_rows(features))


def test_activations_keep_their_dtype(tmp_path: Path) -> None:
    tensor = torch.randn(2, 3, 4).bfloat16()
    chunk_files.write_activations(tmp_path / "a.safetensors", {"layers.0": tensor}, RECORD)
    stored, record = chunk_files.read_activations(tmp_path / "a.safetensors", "abc")
    assert torch.equal(stored["layers.0"], tensor)
    assert record["fingerprint"] == "abc"


def test_every_file_has_the_permissions_of_a_new_file(tmp_path: Path, features: SparseFeatures) -> None:
    chunk_files.write_features(tmp_path / "f.safetensors", [to_rows(features)], RECORD)
    _write_table(tmp_path / "t.parquet", features)
    (tmp_path / "new").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_file_of_another_fingerprint_is_refused(tmp_path: Path, features: SparseFeatures) -> None:
    chunk_files.write_features(tmp_path / "f.safetensors", [to_rows(features)], RECORD)
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


@pytest.mark.parametrize("name", ["*.parquet", "*.statistics.safetensors"])
def test_a_file_that_is_altered_between_two_ranges_of_features_is_refused(
    tmp_path: Path, features: SparseFeatures, name: str
) -> None:
    table, verified = tmp_path / "t.parquet", dict[Path, chunk_files.States]()
    _write_table(table, features)
    files = [(table, "abc")]
    list(chunk_files.read_tables(files, part=chunk_files.FeaturePart(range(4), 9), verified=verified))
    (altered,) = tmp_path.glob(name)
    data = altered.read_bytes()
    at = 40 if name == "*.parquet" else len(data) - 1  # in values of the first column, or of the last one
    altered.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(DamagedFileError, match="do not match its checksum"):
        list(chunk_files.read_tables(files, part=chunk_files.FeaturePart(range(4, 9), 9), verified=verified))
