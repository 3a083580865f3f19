"""The files of a store at a URL: what is stored in which order, what is copied, and what goes again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from extraction_assets.engine.corpora import tokenize
from extraction_assets.engine.corpora.documents import Document
from extraction_assets.engine.corpora.tokenize import Packing, SampleStream
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.opening import read_at_url
from extraction_assets.stores.remote_files import RemoteFiles
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.remote_listing import RemoteListing
from extraction_assets.stores.storage_patience import Patience, StorageAway
from extraction_assets.stores.storage_urls import StorageUrl


@pytest.fixture
def url(tmp_path: Path) -> Iterator[StorageUrl]:
    yield StorageUrl("memory", tmp_path.name)
    MemoryFileSystem().store.clear()


@pytest.fixture
def files(url: StorageUrl, tmp_path: Path) -> Iterator[RemoteFiles]:
    files = RemoteFiles(RemoteFolder(url), tmp_path / "root", kept_bytes=3)
    yield files
    files.close()


def store(files: RemoteFiles, name: str, content: bytes) -> Path:
    with files.storing(files.root / name) as draft:
        draft.write_bytes(content)
    return files.root / name


def test_a_file_is_stored_after_those_beside_it(files: RemoteFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, put = list[str](), RemoteFolder.put

    def noting(folder: RemoteFolder, path: Path, name: str) -> None:
        stored.append(name)
        put(folder, path, name)

    monkeypatch.setattr(RemoteFolder, "put", noting)
    with files.storing(files.root / "one" / "a.table") as draft:
        draft.write_bytes(b"table")
        for name in ("z.beside", "0.beside"):
            draft.with_name(name).write_bytes(b"beside")
        assert stored == []
    assert stored == ["one/0.beside", "one/z.beside", "one/a.table"]
    assert [path for path in files.root.rglob("*") if path.is_file()] == []


def test_names_say_which_are_files(files: RemoteFiles) -> None:
    for name in ("one/a", "one/folder/b"):
        store(files, name, b"x")
    assert files.names(files.root / "one") == {"a": True, "folder": False}
    assert files.names(files.root / "absent") == {}


def test_nothing_is_stored_if_the_block_fails(files: RemoteFiles) -> None:
    with pytest.raises(OSError, match="full"), files.storing(files.root / "one" / "a") as draft:
        draft.write_bytes(b"half")
        raise OSError("full")
    assert files.inside(files.root / "one") == []
    assert [path for path in files.root.rglob("*") if path.is_file()] == []


def test_a_copy_stays_while_it_is_read_and_goes_when_others_are(files: RemoteFiles) -> None:
    one, two = store(files, "f/one", b"1111"), store(files, "f/two", b"2222")
    with files.reading(one) as first:
        with files.reading(two) as second:
            assert second.read_bytes() == b"2222"
        assert first.read_bytes() == b"1111"
    with files.reading(two) as second:
        assert second.exists()
    assert not first.exists()


def test_a_file_that_was_replaced_is_copied_again(files: RemoteFiles, url: StorageUrl) -> None:
    path = store(files, "f/one", b"before")
    with files.reading(path) as copy:
        assert copy.read_bytes() == b"before"
    RemoteFolder(url).put(_written(files.root / "new", b"after that"), "f/one")
    files.remote(path.parent)  # lists again
    with files.reading(path) as copy:
        assert copy.read_bytes() == b"after that"


def test_what_is_removed_or_set_aside_is_gone_at_once(files: RemoteFiles) -> None:
    one, two = store(files, "f/one", b"1"), store(files, "f/two", b"22")
    assert files.remove([one]) == 1
    aside = files.set_aside(two)
    assert aside is not None
    assert aside.startswith(".two.")
    assert [path.name for path in files.inside(files.root / "f")] == [aside]
    assert not files.is_file(two)
    with pytest.raises(FileNotFoundError, match=r"memory://.*/f/two is not there"), files.reading(two):
        pass


def test_names_that_lead_out_of_the_folder_are_not_seen(url: StorageUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteFolder(url)
    entry = {"f/../../x": None, "f/fine": None, "f//x": None}
    monkeypatch.setattr(folder, "entries", lambda _: entry)
    assert set(RemoteListing(folder).inside("f")) == {"fine"}


def test_scratch_of_dead_processes_goes_and_that_of_living_ones_stays(files: RemoteFiles) -> None:
    with files.storing(files.root / "f" / "one") as draft:
        dead = draft.parent.parent.with_name("0" * 32)
        dead.mkdir()
        other = RemoteFiles(files._folder, files.root)
        store(other, "f/two", b"2")
        assert draft.parent.is_dir()
        assert not dead.exists()
        draft.write_bytes(b"1")
        other.close()


def test_a_corpus_that_is_tokenized_lies_in_scratch_which_goes_with_a_dead_process(files: RemoteFiles) -> None:
    found = list[Path]()

    def documents() -> Iterator[Document]:
        for number in range(2 * tokenize._BLOCK_SAMPLES):
            yield str(number), np.arange(4)
        found.extend(files.root.rglob("token_ids.npy"))

    samples = SampleStream(documents(), None, Packing(4), 2 * tokenize._BLOCK_SAMPLES)
    ChunkStore(files).write_corpus(samples, source="a", tokenizer="b", packing="documents", start_sample=0)
    (half,) = found
    assert half.is_relative_to(files._scratch)


def test_a_temporary_store_leaves_nothing_on_close(url: StorageUrl, files: RemoteFiles) -> None:
    path = store(files, "f/one", b"1")
    opened = read_at_url(url)
    with opened.files.reading(opened.root / path.relative_to(files.root)) as copy:
        assert copy.read_bytes() == b"1"
    opened.close()
    assert not opened.root.exists()


def test_what_no_other_attempt_changes_is_not_repeated() -> None:
    attempts = list[int]()

    def refused() -> None:
        attempts.append(1)
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        Patience(60).repeat(refused, "it")
    assert attempts == [1]


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("extraction_assets.stores.storage_patience.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "extraction_assets.stores.storage_patience.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds)
    )

    def away() -> None:
        raise ConnectionError("no route")

    with pytest.raises(StorageAway, match=r"no route \(asked again for (4\d|5\d|60) s\)\. What is durable stays"):
        Patience(60).repeat(away, "it")


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
