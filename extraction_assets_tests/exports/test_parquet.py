"""Parquet: what pyarrow, pandas and ``datasets`` read is what the database holds."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from extraction_assets.database.queries.examples import draws_of, examples_of, find_feature
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.tables import feature_example_lists, samples
from extraction_assets.engine.statistics.registry import COLUMNS
from extraction_assets.exports import source as exported_source
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.formats import parquet
from extraction_assets.exports.source import ExportSource
from extraction_assets_tests.database import kinds
from extraction_assets_tests.exports.readers import read_by
from extraction_assets_tests.exports.written import source_of, write


@pytest.fixture(scope="module")
def folder(small_engine: sa.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small results as Parquet. Not to be changed."""
    with small_engine.connect() as connection:
        return write(source_of(connection), "parquet", tmp_path_factory.mktemp("parquet") / "out").folder


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / f"{table}.parquet").to_pylist()
    return found


def test_features_have_the_statistics_of_the_database(small: sa.Connection, folder: Path) -> None:
    extraction = find_extraction(small, "small", "one")
    found = rows(folder, "features")
    assert [row["neuron_index"] for row in found] == list(range(extraction.latent_dim))
    for row in found:
        stored = find_feature(small, extraction.id, row["neuron_index"])
        assert {one.name: row[one.name] for one in COLUMNS} == {one.name: getattr(stored, one.name) for one in COLUMNS}


def test_examples_are_those_of_the_database(small: sa.Connection, folder: Path) -> None:
    extraction = find_extraction(small, "small", "one")
    found = rows(folder, "examples")
    expected = [
        (index, one)
        for index in range(extraction.latent_dim)
        for one in examples_of(small, extraction.id, index, 10**6)
    ]
    assert len(found) == len(expected) > 0
    for row, (index, one) in zip(found, expected, strict=True):
        values = np.zeros(len(one.tokens))
        values[one.positions] = one.activations
        assert (row["neuron_index"], row["rank"], row["sample_index"]) == (index, one.rank, one.sample_index)
        assert (row["max_activation"], row["max_token"]) == (one.max_activation, one.max_token)
        assert row["max_position"] == one.positions[0]
        assert (row["tokens"], row["values"]) == (one.tokens, values.tolist())


def test_a_transcoder_over_hostile_text_has_every_token(hostile: ExportSource, tmp_path: Path) -> None:
    folder = write(hostile, "parquet", tmp_path / "out").folder
    found = [
        (row["neuron_index"], row["sample_index"], row["tokens"], row["values"]) for row in rows(folder, "examples")
    ]
    expected = []
    for index in range(hostile.extraction.latent_dim):
        for one in examples_of(hostile.connection, hostile.extraction.id, index, 10**6):
            values = dict(zip(one.positions, one.activations, strict=True))
            listed = [values.get(position, 0) for position in range(len(one.tokens))]
            expected.append((index, one.sample_index, one.tokens, listed))
    assert found == expected
    assert any("" in tokens for _, _, tokens, _ in found)


def test_draws_are_those_of_the_database(small: sa.Connection, folder: Path) -> None:
    extraction = find_extraction(small, "small", "one")
    expected = [
        (index, one.interval, one.sample_index, one.tokens)
        for index in range(extraction.latent_dim)
        for one in draws_of(small, extraction.id, index)
    ]
    found = [
        (row["neuron_index"], row["interval"], row["sample_index"], row["tokens"]) for row in rows(folder, "draws")
    ]
    assert found == expected
    assert found


def test_samples_are_those_that_examples_name(folder: Path) -> None:
    found = {row["sample_index"]: row["tokens"] for row in rows(folder, "samples")}
    named = {row["sample_index"]: row["tokens"] for row in [*rows(folder, "examples"), *rows(folder, "draws")]}
    assert found == named


def test_labels_are_those_of_the_database(folder: Path) -> None:
    (row,) = rows(folder, "labels")
    assert (row["label"], row["mark"], row["note"]) == ("cats", "interesting", "a note")
    assert row["updated_at"].tzinfo is not None


def test_chosen_features_bring_what_belongs_to_them(small: sa.Connection, tmp_path: Path) -> None:
    folder = write(source_of(small, features=[1]), "parquet", tmp_path / "out").folder
    assert {row["neuron_index"] for table in ("features", "examples") for row in rows(folder, table)} == {1}
    named = {row["sample_index"] for row in [*rows(folder, "examples"), *rows(folder, "draws")]}
    assert {row["sample_index"] for row in rows(folder, "samples")} == named
    assert rows(folder, "labels") == []


def _in_small_files(patch: pytest.MonkeyPatch) -> None:
    """Two features in each file, and one sample."""
    patch.setattr(parquet, "FEATURES_IN_FILE", 2)
    patch.setattr(parquet, "_TOKENS_IN_FILE", 1)
    patch.setattr(parquet, "_TOKENS_AT_ONCE", 1)
    patch.setattr(exported_source, "_CHARACTERS_AT_ONCE", 1)


@pytest.fixture(scope="module")
def parts(small_engine: sa.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in small files. Not to be changed."""
    with pytest.MonkeyPatch.context() as patch, small_engine.connect() as connection:
        _in_small_files(patch)
        return write(source_of(connection), "parquet", tmp_path_factory.mktemp("parquet") / "parts").folder


@pytest.mark.parametrize("table", ["features", "examples", "draws", "samples"])
def test_numbered_parts_hold_the_same_rows(folder: Path, parts: Path, table: str) -> None:
    files = sorted(parts.glob(f"{table}-*.parquet"))
    assert files[0].name == f"{table}-00000.parquet"
    assert len(files) > 1
    assert [row for file in files for row in pq.read_table(file).to_pylist()] == rows(folder, table)


def test_the_data_card_names_no_path_of_this_machine(hostile: ExportSource, tmp_path: Path) -> None:
    card = (write(hostile, "parquet", tmp_path / "out").folder / "README.md").read_text("utf-8")
    assert "| model | model |" in card
    assert str(tmp_path.parents[1]) not in card


def test_the_data_card_names_the_parts(parts: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    read = load_dataset(str(parts), "examples", split="train", cache_dir=str(tmp_path / "cache"))
    files = parts.glob("examples-*.parquet")
    assert len(read) == sum(pq.read_metadata(file).num_rows for file in files)


def test_the_data_card_names_no_folder_of_this_machine(hostile: ExportSource, tmp_path: Path) -> None:
    card = (write(hostile, "parquet", tmp_path / "out").folder / "README.md").read_text("utf-8")
    assert ("| corpus | texts |" in card, "| model | model |" in card) == (True, True)


def test_an_export_that_goes_on_gives_the_same_files(
    small: sa.Connection, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _in_small_files(monkeypatch)
    parts = shutil.copytree(parts, tmp_path / "parts")
    before = {path.name: path.read_bytes() for path in parts.glob("*.parquet")}
    removed = sorted(before)[::2]
    for name in removed:
        (parts / name).unlink()
    assert write(source_of(small), "parquet", parts).written == len(removed)
    assert {path.name: path.read_bytes() for path in parts.glob("*.parquet")} == before


def test_tables_can_be_skipped_by_the_features_in_them(folder: Path) -> None:
    group = pq.read_metadata(folder / "examples.parquet").row_group(0)
    columns = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
    assert columns["neuron_index"].statistics.min == 0
    assert columns["tokens.list.element"].statistics is None  # they would take half of the time


@contextlib.contextmanager
def changed(small: sa.Connection, table: sa.Table, where: sa.ColumnElement[bool], **values: Any) -> Iterator[None]:
    """A row with other values, for the time of the block."""
    (before,) = small.execute(sa.select(*(table.c[name] for name in values)).where(where))
    with small.engine.begin() as connection:
        connection.execute(sa.update(table).where(where).values(**values))
    small.rollback()
    try:
        yield
    finally:
        small.rollback()
        with small.engine.begin() as connection:
            connection.execute(sa.update(table).where(where).values(**before._asdict()))


@kinds.shared_sql
@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        ([[7, 8.0, " cat", [2, 9], [8.0]]], "the examples of one of the features 0 to 2 of small/one are damaged"),
        ([[7, 8.0, " cat", [11], [8.0]]], "an example of small/one names a position behind its sample's end"),
        ([[77, 8.0, " cat", [1], [8.0]]], "sample 77, which an example of small/one names, is not in the results"),
    ],
)
def test_examples_that_cannot_be_are_refused(
    small: sa.Connection, tmp_path: Path, damaged: list[Any], said: str
) -> None:
    c = feature_example_lists.c
    with (
        changed(small, feature_example_lists, (c.extraction_id == 1) & (c.neuron_index == 0), examples=damaged),
        pytest.raises(ExportError, match=f"{said}.*: merge the extraction again"),
    ):
        write(source_of(small), "parquet", tmp_path / "out")


@kinds.shared_sql
def test_a_sample_with_a_token_that_is_no_text_is_refused(small: sa.Connection, tmp_path: Path) -> None:
    c = samples.c
    with (
        changed(small, samples, (c.corpus_id == 1) & (c.sample_index == 7), tokens=["a", None]),
        pytest.raises(ExportError, match="the tokens of one of the samples 7 to 10 of small/one are damaged"),
    ):
        write(source_of(small), "parquet", tmp_path / "out")


def test_tables_without_rows_are_read_too(small: sa.Connection, tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = write(source_of(small, sae="two"), "parquet", tmp_path / "out").folder
    assert rows(folder, "draws") == rows(folder, "labels") == []
    assert pd.read_parquet(folder / "labels.parquet").columns.tolist()[:2] == ["neuron_index", "label"]
    read = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert read["neuron_index"][:] == [row["neuron_index"] for row in rows(folder, "features")]


def test_what_is_not_computed_is_null(small: sa.Connection, tmp_path: Path) -> None:
    folder = write(source_of(small, sae="two"), "parquet", tmp_path / "out").folder
    names = ("flags", "top_tokens", "next_tokens", "neighbours", "top_logits", "bottom_logits", "nearest")
    assert [rows(folder, "features")[0][name] for name in names] == [None] * 7


@pytest.mark.parametrize("table", ["features", "examples", "draws", "samples", "labels"])
def test_datasets_reads_each_table_by_its_name(folder: Path, table: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    read = load_dataset(str(folder), table, split="train", cache_dir=str(tmp_path / "cache"))
    assert read.to_list() == rows(folder, table)


def test_pandas_reads_tokens_as_texts(folder: Path) -> None:
    frame = pd.read_parquet(folder / "examples.parquet")
    assert [len(tokens) for tokens in frame["tokens"]] == [len(values) for values in frame["values"]]
    assert all(isinstance(token, str) for tokens in frame["tokens"] for token in tokens)


DUCKDB = """
    import duckdb, json, sys
    read = duckdb.sql(f"select neuron_index, tokens, values from '{sys.argv[1]}/examples*.parquet' order by 1, rank")
    print(json.dumps(read.fetchall()))
"""
POLARS = """
    import json, polars, sys
    read = polars.read_parquet(f"{sys.argv[1]}/examples*.parquet").select("neuron_index", "tokens", "values")
    print(json.dumps([list(row) for row in read.rows()]))
"""


@pytest.mark.parametrize(("package", "script"), [("duckdb", DUCKDB), ("polars", POLARS)])
def test_other_programs_read_parts_as_one_table(folder: Path, parts: Path, package: str, script: str) -> None:
    found = read_by(script, parts, package=package)
    assert found == [[row["neuron_index"], row["tokens"], row["values"]] for row in rows(folder, "examples")]
