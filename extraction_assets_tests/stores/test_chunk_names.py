"""Names of chunk files: what is formed is read back, and nothing else is taken for a chunk's file."""

from pathlib import Path

import pytest

from extraction_assets.stores.chunk_names import (
    COMPANIONS,
    FORMS,
    ChunkFile,
    chunk_files,
    chunk_paths,
    companion_path,
    of_any_fingerprint,
    tables_of,
)

KEY, FINGERPRINT, CHECKSUM = "000000000008", "0123456789abcdef01234567", "ab" * 32


@pytest.mark.parametrize("asset", FORMS)
def test_a_name_is_read_back(asset: str) -> None:
    for path in chunk_paths(Path("folder"), asset, KEY, FINGERPRINT):
        assert list(chunk_files([path])) == [ChunkFile(path, KEY, FINGERPRINT, None)]


def test_names_are_those_of_earlier_versions() -> None:
    (table,) = chunk_paths(Path("folder"), "top_k_table", KEY, FINGERPRINT)
    assert table == Path("folder/000000000008-0123456789abcdef01234567.parquet")
    name = "000000000008-0123456789abcdef01234567.abababababab.statistics.safetensors"
    assert companion_path(table, "statistics", CHECKSUM) == Path("folder") / name


@pytest.mark.parametrize("kind", COMPANIONS)
def test_files_beside_a_table_are_known_by_the_checksum_in_their_name(kind: str) -> None:
    (table,) = chunk_paths(Path("folder"), "top_k_table", KEY, FINGERPRINT)
    beside = companion_path(table, kind, CHECKSUM)
    assert list(chunk_files([beside])) == [ChunkFile(beside, KEY, FINGERPRINT, CHECKSUM[:12], kind)]
    assert tables_of(beside) == [table]


@pytest.mark.parametrize(
    "name",
    [
        "8-0123456789abcdef01234567.parquet",
        "000000000008-0123.parquet",
        "000000000008-0123456789abcdef01234567.txt",
        "000000000008-0123456789abcdef01234567.parquet.bak",
        ".000000000008-0123456789abcdef01234567.parquet.0123456789abcdef0123456789abcdef.damaged",
        "report.html",
    ],
)
def test_other_names_are_no_chunk_files(name: str) -> None:
    assert list(chunk_files([Path(name)])) == []


def test_files_of_other_fingerprints_and_later_forms_are_found() -> None:
    names = [f"{KEY}-{FINGERPRINT}.parquet", f"{KEY}-ff.v9.parquet", f"000000000016-{FINGERPRINT}.parquet"]
    others = [f"{KEY}-{FINGERPRINT}.0123456789ab.statistics.safetensors", f"{KEY}.parquet"]
    assert list(of_any_fingerprint([*names, *others], "top_k_table")) == [(name.split("-")[0], name) for name in names]
