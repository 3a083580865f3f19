"""Folders at URLs: files that are whole or absent in storage that puts them there at once, and in any other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.storage_urls import StorageError, StorageUrl


class _Server(MemoryFileSystem):
    """As a server of files that shows each while it arrives."""

    protocol = "server"
    store: dict[str, Any] = {}
    pseudo_dirs: list[str] = [""]

    fails = False

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        super().put_file(lpath, rpath, **options)
        if self.fails:
            raise ConnectionError("the line is cut")


@pytest.fixture
def server() -> Iterator[_Server]:
    yield _Server()
    _Server.store.clear()


@pytest.fixture
def folder(server: _Server) -> RemoteFolder:
    return RemoteFolder(StorageUrl("server", "deep/folder"), (server, "/deep/folder"))


def test_a_file_arrives_under_its_name_once_it_is_whole(folder: RemoteFolder, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"all of it")
    folder.put(tmp_path / "one", "inside/one.txt")
    assert folder.sizes() == {"inside/one.txt": 9}
    assert folder.read("inside/one.txt") == b"all of it"


def test_nothing_is_left_of_a_file_that_arrived_in_part(folder: RemoteFolder, server: _Server, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"half")
    server.fails = True
    with pytest.raises(StorageError, match="server://deep/folder cannot be written: the line is cut"):
        folder.put(tmp_path / "one", "one.txt")
    assert folder.sizes() == {}


def test_a_folder_that_is_not_there_is_empty(folder: RemoteFolder) -> None:
    assert folder.sizes() == {}
    assert folder.read("one.txt") is None
    folder.remove("one.txt")
