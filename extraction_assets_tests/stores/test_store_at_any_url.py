"""A chunk store at a URL of fsspec that is no S3: in memory, which tests alone have."""

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from extraction_assets.assets.chunks import run as chunk_run
from extraction_assets.assets.examples import chunk_tables, spilled
from extraction_assets.assets.examples.merging import Merged
from extraction_assets.planning import merge_order
from extraction_assets.resources import ChunkStoreResource
from extraction_assets.settings import Chunk
from extraction_assets.stores import remote_files
from extraction_assets.stores.local_copies import LocalCopies
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.storage_urls import StorageError
from extraction_assets_tests.object_storage import SECRET
from extraction_assets_tests.project import Project
from extraction_assets_tests.tiny import make_settings


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}"


def names(place: str, folder: str) -> list[str]:
    """Names of the files in a folder of a store, without what differs from one to the other."""
    found = MemoryFileSystem().find(f"/{place.partition('://')[2]}/{folder}")
    return sorted(path.rpartition("/")[2] for path in found)


@pytest.mark.slow
def test_tables_of_many_chunks_are_stored_read_and_made_again(
    place: str, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_order, "FAN_IN", 2)
    settings = make_settings(tiny_folder, chunk_size=4)
    project = Project(settings, home, chunk_store=ChunkStoreResource(root=place))
    project.corpus()
    project.chunks()
    project.merge("relu")
    rows = project.rows("SELECT * FROM feature_activations")
    tables = [name for name in names(place, "tiny/relu/merged_tables") if name.endswith(".parquet")]
    assert len(settings.chunks) > 4
    assert tables
    joined = chunk_tables._ChunkTables._join
    monkeypatch.setattr(chunk_tables._ChunkTables, "_join", lambda *_: pytest.fail("a table was merged again"))
    project.merge("relu")
    monkeypatch.setattr(chunk_tables._ChunkTables, "_join", joined)
    path = f"/{place.partition('://')[2]}/tiny/relu/merged_tables/{tables[0]}"
    whole = MemoryFileSystem().cat_file(path)
    MemoryFileSystem().pipe_file(path, whole[:20] + b"x" + whole[21:])
    project.merge("relu")
    assert MemoryFileSystem().cat_file(path) == whole
    assert project.rows("SELECT * FROM feature_activations") == rows


@pytest.mark.slow
def test_the_next_chunk_is_computed_while_one_is_uploaded_and_no_more(
    place: str, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(make_settings(tiny_folder), home, chunk_store=ChunkStoreResource(root=place))
    project.corpus()
    compute, put = chunk_run.compute_chunk, RemoteFolder.put
    begun, second_begins, seen = list[str](), threading.Event(), list[list[str]]()

    def noting(plan: Any, loaded: Any, usage: Any, chunk: Chunk, *others: Any) -> Any:
        begun.append(chunk.key)
        if len(begun) == 2:
            second_begins.set()
        return compute(plan, loaded, usage, chunk, *others)

    def slowly(folder: RemoteFolder, path: Path, name: str) -> None:
        if "relu/top_k_table/000000000000-" in name and name.endswith(".parquet"):
            assert second_begins.wait(30)
            time.sleep(0.5)  # the second is computed by then
            seen.append(list(begun))
        put(folder, path, name)

    monkeypatch.setattr(chunk_run, "compute_chunk", noting)
    monkeypatch.setattr(RemoteFolder, "put", slowly)
    assert project.chunks().success
    assert seen == [project.settings.chunk_keys[:2]]
    assert begun == project.settings.chunk_keys


def test_a_path_and_a_file_url_are_folders_of_this_machine(tmp_path: Path) -> None:
    assert ChunkStoreResource(root=str(tmp_path)).open().root == tmp_path
    assert ChunkStoreResource(root=f"file://{tmp_path}").open().root == tmp_path


def test_the_store_of_the_environment_is_taken_where_no_resource_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("EXTRACTION_STORE", place)
    assert ChunkStoreResource().open().place == place
    assert ChunkStoreResource(root=str(tmp_path)).open().place == str(tmp_path)


@pytest.mark.parametrize("url", [f"sftp://me:{SECRET}@host/x", f"az://box/x?sig={SECRET}"])
def test_a_store_whose_url_holds_credentials_is_refused_without_showing_them(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTRACTION_STORE", url)
    with pytest.raises(StorageError, match="by the environment") as refused:
        ChunkStoreResource().open()
    assert SECRET not in str(refused.value)


def test_a_store_that_depends_on_the_working_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_STORE", "some/folder")
    with pytest.raises(ValueError, match="EXTRACTION_STORE is 'some/folder', another folder in every"):
        ChunkStoreResource().open()


@pytest.mark.slow
def test_a_merge_by_ranges_of_features_copies_each_table_once(
    place: str, tiny_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all of them are more than what is kept of files that were read last."""
    fetched, fetch = Counter[str](), RemoteFolder.fetch

    def counting(folder: RemoteFolder, name: str, path: Path) -> bool:
        fetched[name.rpartition("/")[2]] += 1
        return fetch(folder, name, path)

    monkeypatch.setattr(remote_files, "LocalCopies", lambda _: LocalCopies(1))
    project = Project(make_settings(tiny_folder), home, chunk_store=ChunkStoreResource(root=place))
    project.corpus()
    project.chunks()
    monkeypatch.setattr(spilled, "MERGE_BYTES", 10_000)
    monkeypatch.setattr(RemoteFolder, "fetch", counting)
    ranges, add = list[Merged](), spilled.SpilledParts.add
    monkeypatch.setattr(spilled.SpilledParts, "add", lambda parts, one: (ranges.append(one), add(parts, one)))
    project.merge("relu")
    tables = [count for name, count in fetched.items() if name.endswith(".parquet")]
    assert len(ranges) > 1
    assert len(tables) == len(project.settings.chunks)
    assert max(fetched.values()) <= 2  # once before the first range, to foresee what all come to
    assert list((home / ".stores").rglob("copies/**/*.parquet")) == []
