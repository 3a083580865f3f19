"""Stored corpora: every byte of what vouches for them is covered, and nothing hostile is believed or raised raw."""

import ast
import errno
import json
import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extraction_assets.engine.corpora import tokenize
from extraction_assets.engine.corpora.documents import Document
from extraction_assets.engine.corpora.tokenize import Packing, SampleStream, tokenize_corpus
from extraction_assets.stores import corpus_files
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.corpus_arrays import ARRAYS, DOCUMENTS, write_arrays
from extraction_assets.stores.corpus_files import MANIFEST, StoredCorpus, identity, open_corpus, write_corpus
from extraction_assets.stores.sealed import DamagedFileError, names_set_aside, set_aside, writing
from extraction_assets.stores.sealed_json import write_sealed_json
from extraction_assets_tests.full_disk import fill, small_disk
from extraction_assets_tests.stores.build import (
    HOSTILE,
    as_of_an_earlier_version,
    flipped,
    make_arrays,
    store_corpus,
)


@pytest.fixture
def store(tmp_path: Path) -> ChunkStore:
    return ChunkStore(tmp_path)


@pytest.fixture
def stored(store: ChunkStore) -> StoredCorpus:
    return store_corpus(store)


def _path(store: ChunkStore, name: str) -> Path:
    return store.pointer("tiny") if name == "corpus.json" else next(store.corpora.glob(f"*/{name}"))


def _refusal(store: ChunkStore, name: str) -> str:
    """The message with which the current corpus is refused; one sentence that names the file."""
    with pytest.raises(DamagedFileError) as caught:
        store.current_corpus("tiny")
    message = str(caught.value)
    assert name in message
    assert "run NAME --missing" in message
    assert len(message.splitlines()) == 1
    assert len(message) < 500 + len(str(store.root))
    return message


# Streams


def _documents(count: int) -> Iterator[Document]:
    """Of 400 tokens each."""
    return ((f"{number}", np.arange(number, number + 400, dtype=np.int32)) for number in range(count))


def _stream(samples: int = 2_000, at_end: Callable[[], None] = lambda: None) -> SampleStream:
    return SampleStream(_documents(samples), None, Packing(400), samples, at_end=at_end)


_SAID = {"source": "a", "tokenizer": "b", "packing": "documents", "start_sample": 0}


def test_a_stream_is_stored_as_the_corpus_that_it_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "_BLOCK_SAMPLES", 3)
    whole = tokenize_corpus(_documents(10), None, Packing(400), 10)
    stored = write_corpus(tmp_path, _stream(10), **_SAID)  # type: ignore[arg-type]
    for name in ARRAYS:
        np.save(tmp_path / "expected.npy", getattr(whole, name))
        assert (stored.folder / f"{name}.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
    assert (stored.folder / DOCUMENTS).read_text() == json.dumps(whole.document_ids)
    assert write_corpus(tmp_path, whole, **_SAID).folder == stored.folder  # type: ignore[arg-type]


def test_the_memory_of_storing_a_stream_does_not_grow_with_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenize, "_BLOCK_SAMPLES", 32)
    tracemalloc.start()
    try:
        write_arrays(tmp_path, _stream())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    written = sum(path.stat().st_size for path in tmp_path.glob("*.npy"))
    assert written > 2_000 * 400 * 6
    assert peak < written / 4


def test_a_full_disk_is_named_with_the_file_and_nothing_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        ballast = fill(disk)
        os.truncate(ballast, ballast.stat().st_size - (1 << 20))
        with pytest.raises(OSError, match="No space left") as caught:
            write_corpus(disk / "corpora", _stream(), **_SAID)  # type: ignore[arg-type]
        assert list((disk / "corpora").iterdir()) == []
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.startswith(str(tmp_path / "disk" / "corpora"))


def test_what_is_refused_at_the_end_of_a_stream_is_not_stored(tmp_path: Path) -> None:
    def refuse() -> None:
        raise ValueError("the tokenizer has two readings")

    with pytest.raises(ValueError, match="two readings"):
        write_corpus(tmp_path, _stream(5, refuse), **_SAID)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# Damage


def test_a_damaged_corpus_is_replaced_once_by_writers_that_all_found_it_damaged(
    store: ChunkStore, stored: StoredCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(path: Path) -> Path | None:
        time.sleep(0.1)  # the others judge the same folder meanwhile
        return set_aside(path)

    monkeypatch.setattr(corpus_files, "set_aside", slowly)
    (stored.folder / MANIFEST).write_bytes(b"damaged")
    said = {name: getattr(stored.manifest, name) for name in ("source", "tokenizer", "packing", "start_sample")}
    with writing(store.corpora), ThreadPoolExecutor(3) as pool:  # as a run that makes a corpus does
        made = list(pool.map(lambda _: write_corpus(store.corpora, make_arrays(), **said), range(3)))
    assert {corpus.folder for corpus in made} == {stored.folder}
    assert len(names_set_aside(store.corpora.iterdir())) == len(list(store.corpora.glob(".*.damaged"))) == 1


@pytest.mark.parametrize("earlier", [False, True], ids=["sealed", "of an earlier version"])
@pytest.mark.parametrize("name", ["corpus.json", MANIFEST])
def test_a_flipped_bit_of_any_byte_is_found(
    store: ChunkStore, stored: StoredCorpus, name: str, earlier: bool, seed: int
) -> None:
    if earlier:
        as_of_an_earlier_version(store)
    path, accepted = _path(store, name), []
    right, whole = path.read_bytes(), store.current_corpus("tiny")
    assert whole is not None
    for number, wrong in enumerate(flipped(right, seed=seed)):
        path.write_bytes(wrong)
        try:
            found = store.current_corpus("tiny")
        except DamagedFileError:
            continue
        accepted.append((number, found))
    if not (earlier and name == "corpus.json"):
        assert accepted == []
    # An earlier pointer has no checksum: what is compared with what a run works out itself may differ, and no more.
    for _, found in accepted:
        assert found is not None
        assert (found.recipe, found.source) != (whole.recipe, whole.source) or found[3:] == whole[3:]
        assert found.corpus.manifest == whole.corpus.manifest


@pytest.mark.parametrize("name", ["corpus.json", MANIFEST])
def test_every_cut_is_found(store: ChunkStore, stored: StoredCorpus, name: str) -> None:
    path = _path(store, name)
    right = path.read_bytes()
    for length in range(len(right)):
        path.write_bytes(right[:length])
        _refusal(store, name)


@pytest.mark.parametrize("leave", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["corpus.json", MANIFEST, "document_ids.json"])
def test_whatever_lies_in_the_place_of_a_json_file_is_one_sentence(
    store: ChunkStore, stored: StoredCorpus, name: str, leave: Callable[[Path], Any]
) -> None:
    path = _path(store, name)
    path.unlink()
    if name == "document_ids.json" and leave is HOSTILE["a huge file"]:
        pytest.skip("is hashed, which takes its time")
    leave(path)
    _refusal(store, name)


def test_another_start_sample_is_another_corpus(store: ChunkStore, stored: StoredCorpus) -> None:
    """A manifest that is sealed as it should be, but with another ``start_sample`` than its files were made with."""
    write_sealed_json(stored.folder / MANIFEST, {**stored.manifest._asdict(), "start_sample": 1})
    assert "what it says belongs to a corpus" in _refusal(store, MANIFEST)


def test_a_manifest_with_the_identity_of_another_folder_is_refused(store: ChunkStore, stored: StoredCorpus) -> None:
    other = store_corpus(store, start_sample=1)
    (other.folder / MANIFEST).write_bytes((stored.folder / MANIFEST).read_bytes())
    _refusal(store, MANIFEST)


def test_a_pointer_that_leads_out_of_the_store_is_refused(store: ChunkStore, stored: StoredCorpus) -> None:
    path = store.pointer("tiny")
    said = {name: one for name, one in json.loads(path.read_text()).items() if name != "checksum"}
    write_sealed_json(path, {**said, "corpus": "../../elsewhere"})
    assert "'corpus' is no fingerprint" in _refusal(store, "corpus.json")


def test_a_corpus_that_is_gone_is_named(store: ChunkStore, stored: StoredCorpus) -> None:
    stored.folder.rename(store.root / "elsewhere")
    assert "it is gone" in _refusal(store, stored.folder.name)


def _store_hostile(store: ChunkStore, stored: StoredCorpus, name: str, content: bytes) -> None:
    """Puts a file into a corpus whose manifest and pointer vouch for it."""
    import hashlib

    (stored.folder / name).write_bytes(content)
    manifest = stored.manifest
    files = {**manifest.files, name: hashlib.sha256(content).hexdigest()}
    named = identity(files, manifest.source, manifest.tokenizer, manifest.packing, manifest.start_sample)
    write_sealed_json(stored.folder / MANIFEST, {**manifest._asdict(), "files": files, "fingerprint": named})
    stored.folder.rename(store.corpora / named)
    path = store.pointer("tiny")
    said = {name: one for name, one in json.loads(path.read_text()).items() if name != "checksum"}
    write_sealed_json(path, {**said, "corpus": named})


def _npy(array: np.ndarray, tmp_path: Path) -> bytes:
    np.save(tmp_path / "one.npy", array)
    return (tmp_path / "one.npy").read_bytes()


def _header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        b"\x80\x04N.",
        _header("{'descr': '<i4', 'fortran_order': False, 'shape': (9999999999999, 4), }\n"),
        _header("{'descr': '<i4', 'fortran_order': False, 'shape': (1 << 62, 1 << 62), }\n"),
        _header("{'descr': '<i4', 'fortran_order': False, 'shape': (-1, 4), }\n"),
        _header("{'descr': '|O', 'fortran_order': False, 'shape': (6, 4), }\n"),
        _header("{'descr': '<i4', 'fortran_order': True, 'shape': (2, 2), }\n") + bytes(16),
        _header("{'descr': '>i4', 'fortran_order': False, 'shape': (2, 2), }\n") + bytes(16),
        _header("{'descr': '<i4', 'fortran_order': False, 'shape': 4, }\n"),
        _header("(" * 9_000 + "\n"),
        _header("{'descr': [" + "('a', [" * 2_000 + "\n"),
        _header("'''\n"),
    ],
    ids=range(14),
)
def test_an_array_that_is_none_is_one_sentence(store: ChunkStore, stored: StoredCorpus, content: bytes) -> None:
    _store_hostile(store, stored, "token_ids.npy", content)
    _refusal(store, "token_ids.npy")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("attention_mask", np.ones((6, 5), dtype=np.bool_)),
        ("attention_mask", np.ones((6, 4), dtype=np.int8)),
        ("special_tokens_mask", np.ones((5, 4), dtype=np.bool_)),
        ("document_numbers", np.zeros(5, dtype=np.int64)),
        ("document_numbers", np.full(6, 2)),
        ("document_numbers", np.full(6, -1)),
        ("first_tokens", np.zeros((6, 1), dtype=np.int64)),
        ("token_ids", np.zeros((6, 4), dtype=np.int64)),
        ("token_ids", np.zeros(24, dtype=np.int32)),
    ],
    ids=range(9),
)
def test_arrays_that_do_not_belong_together_are_refused(
    store: ChunkStore, stored: StoredCorpus, tmp_path: Path, name: str, array: np.ndarray
) -> None:
    _store_hostile(store, stored, f"{name}.npy", _npy(array, tmp_path))
    _refusal(store, ".npy")


@pytest.mark.parametrize("content", [b"{}", b"[1, 2]", b'["a.txt"]', b"[" * 200_000, b'["a.txt", "\xff"]'])
def test_document_ids_that_are_none_are_one_sentence(store: ChunkStore, stored: StoredCorpus, content: bytes) -> None:
    _store_hostile(store, stored, "document_ids.json", content)
    _refusal(store, "document_")


def test_a_corpus_of_an_earlier_version_is_read_and_gets_its_seals(store: ChunkStore, stored: StoredCorpus) -> None:
    sealed = {name: _path(store, name).read_bytes() for name in ("corpus.json", MANIFEST)}
    as_of_an_earlier_version(store)
    current = store.current_corpus("tiny")
    assert current is not None
    assert current.corpus.manifest == stored.manifest
    assert (current.documents, current.characters) == (None, None)  # nothing tells whether these were altered
    store.keep_current_corpus("tiny", current._replace(documents=2, characters=50))
    assert {name: _path(store, name).read_bytes() for name in sealed} == sealed


def test_an_equal_corpus_takes_the_place_of_a_damaged_one(store: ChunkStore, stored: StoredCorpus) -> None:
    (stored.folder / MANIFEST).write_text("{}")
    store_corpus(store)
    assert open_corpus(store.corpora, stored.folder.name).manifest == stored.manifest


@pytest.mark.parametrize("kind", ["a named pipe", "links in a circle", "no JSON"])
def test_a_corpus_takes_the_place_of_what_is_no_folder(store: ChunkStore, stored: StoredCorpus, kind: str) -> None:
    stored.folder.rename(store.root / "elsewhere")
    HOSTILE[kind](stored.folder)
    store_corpus(store)
    assert open_corpus(store.corpora, stored.folder.name).manifest == stored.manifest


def test_a_pointer_takes_the_place_of_a_folder(store: ChunkStore, stored: StoredCorpus) -> None:
    path = store.pointer("tiny")
    os.unlink(path)
    (path / "deep").mkdir(parents=True)
    store_corpus(store)
    assert store.current_corpus("tiny") is not None


def test_arrays_come_back_equal(store: ChunkStore, stored: StoredCorpus) -> None:
    for found, right in zip(open_corpus(store.corpora, stored.folder.name).arrays, make_arrays(), strict=True):
        assert np.array_equal(found, right)


def test_a_whole_corpus_is_not_set_aside_where_pythons_parser_fails(
    store: ChunkStore, stored: StoredCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may in CPython before 3.11.9 while another thread parses: NumPy reads the headers of arrays with it."""
    before = os.stat(stored.folder).st_ino

    def fails(_text: str) -> None:
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr(ast, "literal_eval", fails)
    store_corpus(store)
    assert os.stat(stored.folder).st_ino == before
