"""Draws and sampled firings beside a table: read back, optional, and damage that is the table's."""

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from extraction_assets.engine.selection.draws import empty_draws
from extraction_assets.engine.selection.select import sample_maxima, select_top_k
from extraction_assets.engine.selection.sparse import dense_to_sparse, to_rows
from extraction_assets.engine.shapes import Draws, SampledFeatures
from extraction_assets.engine.statistics.accumulate import feature_statistics
from extraction_assets.stores.chunk_files import TableFile, check_files, read_sampled, read_table, write_table
from extraction_assets.stores.chunk_record import read_record
from extraction_assets.stores.sealed import DamagedFileError
from extraction_assets.stores.table_companions import look_at_files
from extraction_assets_tests.engine.build import assert_same

RECORD = {"fingerprint": "abc", "numerics": {}, "checks": {}}
FEATURES = dense_to_sparse(torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(0)).relu())
SAMPLED = SampledFeatures(torch.tensor([3, 2**40, 2**40 + 1, 2**40 + 7]), to_rows(FEATURES))
DRAWS = Draws(
    torch.tensor([0, 0, 8]),
    torch.tensor([-1, 40, 79]),
    torch.tensor([2**40, 5, 5]),
    torch.tensor([1.5, 1.0, 2.0**30]),
    torch.tensor([0, 2, 3, 4]),
    torch.tensor([3, 1, 0, 5]),
    torch.tensor([1.5, 0.25, 1.0, 2.0**30]),
)
KINDS = {"draws": "*.draws.pq", "sampled": "*.sampled.safetensors"}


def write(path: Path, *beside: Any) -> Path:
    maxima, counted = sample_maxima(FEATURES), torch.ones(4, 6, dtype=torch.bool)
    table, statistics = select_top_k(FEATURES, maxima, 100, 3), feature_statistics(FEATURES, maxima, counted)
    write_table(path, table, statistics, RECORD, *beside)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "t.parquet", DRAWS, SAMPLED)


def read_all(path: Path) -> TableFile:
    """As the merge and what counts in sampled firings read."""
    read_sampled(path)
    return read_table(path, "abc")


def test_draws_and_sampled_firings_come_back_equal(table: Path) -> None:
    draws, sampled = read_table(table, "abc").draws, read_sampled(table)
    assert draws is not None
    assert sampled is not None
    assert_same(draws, DRAWS)
    assert torch.equal(sampled.sample_index, SAMPLED.sample_index)
    assert_same(sampled.rows, SAMPLED.rows)


def test_no_draws_come_back_as_no_draws(tmp_path: Path) -> None:
    draws = read_table(write(tmp_path / "t.parquet", empty_draws()), "abc").draws
    assert draws is not None
    assert_same(draws, empty_draws())


def test_a_table_without_either_is_as_earlier_versions_wrote_it(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet")
    assert sorted(file.name.split(".", 2)[-1] for file in tmp_path.iterdir()) == ["parquet", "statistics.safetensors"]
    assert {"draws", "sampled"}.isdisjoint(read_record(path))
    assert read_table(path, "abc").draws is None
    assert read_sampled(path) is None
    check_files(path, "abc")
    look_at_files(path, "abc")


def test_draws_are_plain_parquet_for_other_tools(table: Path) -> None:
    (path,) = table.parent.glob("*.draws.pq")
    frame = pq.ParquetFile(path).read().to_pandas()
    columns = ["neuron_index", "interval", "sample_index", "max_activation", "positions", "activations"]
    assert list(frame.columns) == columns
    assert (frame["activations"].str[0] == frame["max_activation"]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "swap"])
def test_damage_beside_a_table_is_the_tables(table: Path, kind: str, harm: str, tmp_path: Path) -> None:
    (victim,) = table.parent.glob(KINDS[kind])
    if harm == "remove":
        victim.unlink()
    elif harm == "swap":  # sound, and of another table
        others = DRAWS._replace(interval=DRAWS.interval.flip(0)), SAMPLED._replace(sample_index=torch.arange(4))
        write(tmp_path / "other" / "t.parquet", *others)
        (other,) = (tmp_path / "other").glob(KINDS[kind])
        victim.write_bytes(other.read_bytes())
    else:
        data = victim.read_bytes()
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        victim.write_bytes(changed if harm == "flip" else data[:-30])
    for look in (lambda: check_files(table, "abc"), lambda: read_all(table)):
        with pytest.raises(DamagedFileError, match=re.escape(victim.name)) as caught:
            look()
        assert caught.value.path == table
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_quick_look_finds_what_is_cut_or_gone(table: Path, kind: str) -> None:
    (victim,) = table.parent.glob(KINDS[kind])
    look_at_files(table, "abc")
    victim.write_bytes(victim.read_bytes()[:-30])
    with pytest.raises(DamagedFileError, match=re.escape(victim.name)):
        look_at_files(table, "abc")
    victim.unlink()
    with pytest.raises(DamagedFileError, match=f"it lacks its {kind} {re.escape(victim.name)}"):
        look_at_files(table, "abc")


@pytest.mark.parametrize(
    "change",
    [{"neuron_index": torch.tensor([0, 0, 9])}, {"interval": torch.tensor([-2, 0, 1])}],
    ids=["feature", "interval"],
)
def test_draws_of_features_or_intervals_that_there_are_not_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor]
) -> None:
    path = write(tmp_path / "t.parquet", DRAWS._replace(**change))
    with pytest.raises(DamagedFileError, match="its draws are not of the 9 features and 80 intervals") as caught:
        read_table(path, "abc")
    assert caught.value.path == path


def test_sampled_firings_without_the_number_of_each_sample_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", DRAWS, SAMPLED._replace(sample_index=torch.arange(3)))
    with pytest.raises(DamagedFileError, match="it numbers 3 samples, and holds 4"):
        read_sampled(path)
