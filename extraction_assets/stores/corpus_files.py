"""Stored corpora: memory-mappable arrays with a manifest, in a folder named after their content."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from extraction_assets.engine.corpora.samples import counted_positions, samples_of
from extraction_assets.engine.corpora.tokenize import SampleStream, TokenizedCorpus
from extraction_assets.engine.shapes import Samples
from extraction_assets.settings import CorpusSettings
from extraction_assets.stores.content_hashes import Memo, content_hash
from extraction_assets.stores.corpus_arrays import ARRAYS, CHAT_FILES, FILES, TOKENIZE_AGAIN, map_arrays, write_arrays
from extraction_assets.stores.fingerprints import LENGTH, bytes_fingerprint
from extraction_assets.stores.sealed import DamagedFileError, alone_in, damaged, open_stored, set_aside, sync
from extraction_assets.stores.sealed_json import check_fields, read_sealed_json, write_sealed_json

MANIFEST = "manifest.json"


class CorpusManifest(NamedTuple):
    """The manifest of a stored corpus."""

    fingerprint: str
    """Hash of the content: equal corpora have equal fingerprints."""
    source: str
    tokenizer: str
    packing: str
    start_sample: int
    files: dict[str, str]
    """File name -> SHA-256."""


_FIELDS = {"fingerprint": str, "source": str, "tokenizer": str, "packing": str, "start_sample": int, "files": dict}


class StoredCorpus:
    """A corpus on disk, whose files have been checked; its arrays are memory-mapped."""

    def __init__(self, folder: Path, manifest: CorpusManifest, arrays: TokenizedCorpus) -> None:
        self.folder, self.manifest, self.arrays = folder, manifest, arrays

    def __len__(self) -> int:
        return len(self.arrays.token_ids)

    def samples(self, rows: slice, settings: CorpusSettings) -> Samples:
        """Rows of the corpus as tensors, with the positions that count."""
        return samples_of(self.arrays, rows, self.manifest.start_sample, settings)

    def tokens_fingerprint(self, rows: slice) -> str:
        """Hash of some samples' tokens and mask: the corpus's length and other samples have no part in it."""
        return self._worked_out("tokens", rows, self._tokens_fingerprint)

    def counted_fingerprint(self, rows: slice, settings: CorpusSettings) -> str:
        """Hash of which positions of some samples count."""
        rules = settings.model_dump_json(include=_COUNTING)
        return self._worked_out(f"counted {rules}", rows, partial(self._counted_fingerprint, settings))

    def content_fingerprint(self, rows: slice) -> str:
        """Hash of some samples' tokens, masks, documents and messages."""
        return self._worked_out("content", rows, self._content_fingerprint)

    def _worked_out(self, kind: str, rows: slice, hash_rows: Callable[[slice], str]) -> str:
        """A hash of rows, once a process: the corpus's fingerprint, which its files were compared with, says what they
        hold."""
        key = (self.manifest.fingerprint, kind, rows.start, rows.stop)
        return _hashes.get(key) or _hashes.keep(key, hash_rows(rows))

    def _counted_fingerprint(self, settings: CorpusSettings, rows: slice) -> str:
        return bytes_fingerprint(counted_positions(self.arrays, rows, settings).tobytes())

    def _tokens_fingerprint(self, rows: slice) -> str:
        token_ids, mask = self.arrays.token_ids[rows], self.arrays.attention_mask[rows]
        return bytes_fingerprint(str(token_ids.shape).encode(), token_ids.tobytes(), mask.tobytes())

    def _content_fingerprint(self, rows: slice) -> str:
        arrays = self.arrays
        names = [arrays.document_ids[number] for number in arrays.document_numbers[rows]]
        return bytes_fingerprint(
            *(
                np.ascontiguousarray(getattr(arrays, name)[rows]).tobytes()
                for name in ARRAYS
                if name != "document_numbers"
            ),
            json.dumps(names).encode(),
            *_messages_said(arrays, rows),
        )


def _messages_said(arrays: TokenizedCorpus, rows: slice) -> list[bytes]:
    """Who speaks where in some samples, whatever numbers the roles have; nothing of a corpus without chats."""
    messages = arrays.messages
    if messages is None:
        return []
    chosen, counts = messages.rows_of(np.arange(*rows.indices(len(arrays.token_ids))))
    spans = messages.spans[chosen]
    said = [messages.roles[role] for role in spans[:, 0].tolist()]
    return [counts.tobytes(), np.ascontiguousarray(spans[:, 1:]).tobytes(), json.dumps(said).encode()]


_COUNTING = {"count_special_tokens", "exclude_first_positions", "exclude_positions"}
_hashes = Memo[tuple[str, str, int, int]](most=100_000)


def write_corpus(
    root: Path,
    corpus: TokenizedCorpus | SampleStream,
    *,
    source: str,
    tokenizer: str,
    packing: str,
    start_sample: int,
    drafts: Path | None = None,
) -> StoredCorpus:
    """Stores a corpus under ``root`` by its content, while a stream is tokenized; uses an equal one that exists.

    Until it is whole it lies in ``drafts``, a folder of the same disk, by default ``root``.
    """
    root.mkdir(parents=True, exist_ok=True)
    temporary = (drafts or root) / f".{uuid.uuid4().hex}.tmp"
    temporary.mkdir()
    try:
        written = write_arrays(temporary, corpus)
        for name in written:
            sync(temporary / name)
        files = {name: _sha256(temporary / name) for name in sorted(written)}
        named = identity(files, source, tokenizer, packing, start_sample)
        manifest = CorpusManifest(named, source, tokenizer, packing, start_sample, files)
        write_sealed_json(temporary / MANIFEST, manifest._asdict())
        sync(temporary)
        _put_in_place(temporary, root / manifest.fingerprint)
        sync(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_corpus(root, manifest.fingerprint)


def identity(files: dict[str, str], source: str, tokenizer: str, packing: str, start_sample: int) -> str:
    """The fingerprint of a corpus, by which its folder is named: a hash of all that its manifest says."""
    said = json.dumps([files, source, tokenizer, packing, start_sample])
    return hashlib.sha256(said.encode()).hexdigest()[:LENGTH]


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename into place; replaces an existing folder only if it is damaged."""
    if not os.path.lexists(folder):
        _rename(temporary, folder)
        return
    # One at a time: who has judged a damaged folder would else set aside the whole one that another put in its place.
    # The lock is on the folder above, since a run that makes a corpus holds the one on the folder of corpora.
    with alone_in(folder.parent.parent):
        try:
            seal_manifest(open_corpus(folder.parent, folder.name))
        except (DamagedFileError, FileNotFoundError):
            set_aside(folder)
            _rename(temporary, folder)


def _rename(temporary: Path, folder: Path) -> None:
    try:
        os.replace(temporary, folder)
    except OSError:
        open_corpus(folder.parent, folder.name)  # an equal one has arrived meanwhile, or this says what is wrong


def open_corpus(root: Path, fingerprint: str) -> StoredCorpus:
    """The stored corpus with this fingerprint, after checking its files and recomputing its identity.

    Raises FileNotFoundError if it is missing, DamagedFileError, which names the file, if one is cut or altered.
    """
    folder = root / fingerprint
    manifest = _read_manifest(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        try:
            found = _sha256(path)
        except FileNotFoundError as error:
            raise damaged(path, "it is missing", TOKENIZE_AGAIN) from error
        if found != expected:
            raise damaged(path, "its bytes do not match the checksum in its manifest", TOKENIZE_AGAIN)
    return StoredCorpus(folder, manifest, map_arrays(folder, chats=set(manifest.files) == set(CHAT_FILES)))


def seal_manifest(corpus: StoredCorpus) -> bool:
    """Adds the missing checksum to the manifest of a corpus that an earlier version stored; whether it was missing."""
    path = corpus.folder / MANIFEST
    if read_sealed_json(path, TOKENIZE_AGAIN, CorpusManifest._fields).sealed:
        return False
    write_sealed_json(path, corpus.manifest._asdict())
    return True


def _read_manifest(folder: Path) -> CorpusManifest:
    """The manifest of a folder. What an earlier version stored without a checksum is covered by its identity."""
    path = folder / MANIFEST
    value = read_sealed_json(path, TOKENIZE_AGAIN, CorpusManifest._fields).value
    check_fields(value, _FIELDS, path, TOKENIZE_AGAIN)
    manifest = CorpusManifest(**{name: value[name] for name in CorpusManifest._fields})
    known = set(manifest.files) in (set(FILES), set(CHAT_FILES))
    if not known or not all(isinstance(one, str) for one in manifest.files.values()):
        raise damaged(path, f"it does not name the files {', '.join(sorted(FILES))}", TOKENIZE_AGAIN)
    # In the order in which they were written: a sealed manifest has sorted them.
    files = {name: manifest.files[name] for name in sorted(manifest.files)}
    worked_out = identity(files, *(value[name] for name in ("source", "tokenizer", "packing", "start_sample")))
    if not worked_out == manifest.fingerprint == folder.name:
        raise damaged(path, f"what it says belongs to a corpus {worked_out}, not to {folder.name}", TOKENIZE_AGAIN)
    return manifest


def _sha256(path: Path) -> str:
    with open_stored(path, TOKENIZE_AGAIN) as file:
        return content_hash(file)
