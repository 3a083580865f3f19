"""Paths of the files of extractions, and which of them are done."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from extraction_assets.catalog import CORPUS, ChunkAsset, asset_row
from extraction_assets.engine.corpora.tokenize import SampleStream, TokenizedCorpus
from extraction_assets.stores.chunk_names import ChunkFile, chunk_files, chunk_names, chunk_paths, of_any_fingerprint
from extraction_assets.stores.chunk_record import Record, expect_fingerprint, read_record
from extraction_assets.stores.corpus_arrays import TOKENIZE_AGAIN
from extraction_assets.stores.corpus_files import MANIFEST, StoredCorpus, open_corpus, seal_manifest, write_corpus
from extraction_assets.stores.fingerprints import FIRST_VERSION, LENGTH
from extraction_assets.stores.local_files import LocalFiles
from extraction_assets.stores.sealed import damaged, names_set_aside
from extraction_assets.stores.sealed_json import SealedJson, check_fields, read_sealed_json, write_sealed_json
from extraction_assets.stores.store_protocol import StoreFiles
from extraction_assets.stores.table_companions import companions_of

ChunkState = Literal["done", "stale", "missing"]


class SourceIdentity(NamedTuple):
    """What a corpus source held when it was read, and its size as far as that is known without reading it twice."""

    fingerprint: str
    documents: int | None = None
    characters: int | None = None
    """Of text files."""
    files: int | None = None
    bytes: int | None = None
    """Of files that hold many documents each."""
    reading: int | None = None
    """Version of the rule by which text is read, where ``fingerprint`` is not one of the text itself."""


class CurrentCorpus(NamedTuple):
    """The corpus that an extraction uses, and what it was made from."""

    corpus: StoredCorpus
    recipe: str
    """Fingerprint of the settings that decide what the corpus holds."""
    source: str
    """Fingerprint of the documents, or of the files or the commit that they come from."""
    version: str
    """Stays while samples are only added or dropped at the end."""
    documents: int | None = None
    """The size of the source, see ``SourceIdentity``; None if an earlier version of this package made the corpus."""
    characters: int | None = None
    files: int | None = None
    bytes: int | None = None
    reading: int | None = None


CORPUS_FORM = FIRST_VERSION
"""Form of a stored corpus, which its ``corpus.json`` says as ``form`` once it is raised. A corpus in the form of a
later version is never opened, and counts as missing; the name of its folder is still read, so that it is not
removed as unused."""

_SIZES = ("documents", "characters", "files", "bytes", "reading")


class ChunkStore:
    """Files under one root: ``corpora/<fingerprint>/``, and for each extraction a folder that mirrors its asset keys,
    ``<extraction>[/<sae>]/<asset>/<chunk file>`` (``stores.chunk_names``).

    ``files`` is the place where they lie: a folder of this machine, for which its path may be given, or a URL.
    """

    def __init__(self, files: Path | StoreFiles) -> None:
        self.files: StoreFiles = LocalFiles(files) if isinstance(files, Path) else files

    @property
    def root(self) -> Path:
        """The paths of all files begin with it, see ``StoreFiles.root``."""
        return self.files.root

    @property
    def place(self) -> str:
        """Where the files are, for messages."""
        return self.files.place

    def close(self) -> None:
        """Lets go of copies of files; a folder of this machine has none."""
        self.files.close()

    def changed_at(self, path: Path) -> float:
        """When a file was written, in seconds; 0 where it has gone meanwhile: reading it will say so."""
        try:
            return self.files.changed_at(path)
        except OSError:
            return 0.0

    def record(self, path: Path) -> Record:
        """The record of a chunk file, without reading or checking the rest (``chunk_record.read_record``)."""
        return self.files.record(path)

    def look_at(self, path: Path, fingerprint: str) -> Record:
        """The record of a chunk file of ``fingerprint``. Raises DamagedFileError, FileNotFoundError."""
        record = self.record(path)
        expect_fingerprint(path, record, fingerprint)
        return record

    @contextlib.contextmanager
    def reading(self, path: Path, *kinds: str) -> Iterator[Path]:
        """The path of a stored file on this machine, to open it in the block; beside a table its files of ``kinds``
        (``COMPANIONS``)."""

        def beside(copy: Path) -> list[Path]:
            named = companions_of(copy, read_record(copy))
            return [other for kind, (other, _) in named.items() if kind in kinds]

        with self.files.reading(path, beside if kinds else None) as copy:
            yield copy

    @property
    def corpora(self) -> Path:
        return self.root / "corpora"

    def asset_folder(self, extraction: str, asset: str, sae: str | None = None) -> Path:
        return self.root / extraction / sae / asset if sae else self.root / extraction / asset

    def asset_file(self, extraction: str, asset: str, sae: str | None = None) -> Path:
        """The one file of an asset that is made once."""
        return self.asset_folder(extraction, asset, sae) / asset_row(asset).files[0]

    def chunk_path(self, extraction: str, asset: ChunkAsset, sae: str | None, key: str, fingerprint: str) -> Path:
        """Path of a chunk's file, to read it: of the newest form that is there, else of the one that is written.

        The fingerprint in it keeps an older result until the new one exists.
        """
        paths = self.chunk_paths(extraction, asset, sae, key, fingerprint)
        return next((path for path in paths if self.files.is_file(path)), paths[0])

    def chunk_paths(
        self, extraction: str, asset: ChunkAsset, sae: str | None, key: str, fingerprint: str
    ) -> list[Path]:
        """Paths of a chunk's file in each form that is read; the first is the one to write."""
        return chunk_paths(self.asset_folder(extraction, asset, sae), asset, key, fingerprint)

    def chunk_state(
        self, extraction: str, asset: ChunkAsset, sae: str | None, key: str, fingerprint: str
    ) -> ChunkState:
        """``done``: a durable file of this fingerprint exists in a readable form; ``stale``: only files of other
        fingerprints; ``missing``: no file. A folder or a named pipe in the place of a file does not count.

        Schedules, retries, ``--missing`` and ``status`` all use this function, or that of many chunks.
        """
        paths = self.chunk_paths(extraction, asset, sae, key, fingerprint)
        if any(self.files.is_file(path) for path in paths):
            return "done"
        return self.chunk_states(extraction, asset, sae, {key: fingerprint})[key]

    def chunk_states(
        self, extraction: str, asset: ChunkAsset, sae: str | None, wanted: Mapping[str, str]
    ) -> dict[str, ChunkState]:
        """``chunk_state`` of many chunks, {key: fingerprint}, from one look at their folder: it would take each missing
        one of 10,000 as long."""
        there = self.files.names(self.asset_folder(extraction, asset, sae))
        current = {key: chunk_names(asset, key, fingerprint) for key, fingerprint in wanted.items()}
        done = {key for key, names in current.items() if any(there.get(name) for name in names)}
        stored = of_any_fingerprint(there if len(done) < len(wanted) else (), asset)
        stale = {key for key, name in stored if key in wanted and name not in current[key]}
        return {key: "done" if key in done else "stale" if key in stale else "missing" for key in wanted}

    def stored_keys(self, extraction: str, asset: ChunkAsset, sae: str | None = None) -> set[str]:
        """Keys of the chunks that have a file of any fingerprint, old ones included."""
        return {chunk.key for chunk in self.chunk_files(extraction, asset, sae) if chunk.seal is None}

    def chunk_files(self, extraction: str, asset: ChunkAsset, sae: str | None = None) -> list[ChunkFile]:
        """The chunk files of an asset in a form that is read, of any fingerprint, sorted by name."""
        return list(chunk_files(self.files.inside(self.asset_folder(extraction, asset, sae))))

    def names_set_aside(self, extraction: str, asset: ChunkAsset, sae: str | None = None) -> set[str]:
        """Names that damaged files of an asset had before they were set aside."""
        return names_set_aside(self.files.inside(self.asset_folder(extraction, asset, sae)))

    def write_corpus(self, corpus: TokenizedCorpus | SampleStream, **said: Any) -> StoredCorpus:
        """Stores a corpus by its content; ``said`` of it is what ``corpus_files.write_corpus`` takes."""
        stored = write_corpus(self.corpora, corpus, drafts=self.files.drafts(self.corpora), **said)
        self.files.store_folder(stored.folder, [*sorted(stored.manifest.files), MANIFEST])
        return stored

    def write_current_corpus(self, extraction: str, current: CurrentCorpus) -> None:
        """Note which corpus an extraction uses, and what it was made from."""
        with self.files.storing(self.pointer(extraction)) as path:
            write_sealed_json(path, _said(current))

    def pointer(self, extraction: str) -> Path:
        """The file that says which corpus an extraction uses."""
        return self.root / extraction / asset_row(CORPUS).files[0]

    def current_corpus(self, extraction: str) -> CurrentCorpus | None:
        """The last materialized corpus; None before the first, and where it is in the form of a later version.

        From a pointer without a checksum, which an earlier version wrote, only those fields are used that the reader
        can compare with computed values. Raises DamagedFileError if its files are cut, altered or missing.
        """
        path = self.pointer(extraction)
        if not self.files.exists(path):
            return None
        said, sealed = self.read_pointer(path)
        if said.get("form", FIRST_VERSION) > CORPUS_FORM:
            return None
        folder = self.corpora / said["corpus"]
        try:
            corpus = self.files.read_folder(folder, lambda: open_corpus(self.corpora, said["corpus"]))
        except FileNotFoundError as error:
            raise damaged(folder, "it is gone", TOKENIZE_AGAIN, self.files.address(folder)) from error
        if not sealed:
            return CurrentCorpus(corpus, said["recipe"], said["source"], said["corpus"])
        later = {name: said.get(name) for name in _SIZES}
        return CurrentCorpus(corpus, said["recipe"], said["source"], said["version"], **later)

    def keep_current_corpus(self, extraction: str, current: CurrentCorpus) -> None:
        """Rewrites what an earlier version stored without checksums or with other values; otherwise does nothing."""
        if seal_manifest(current.corpus):
            self.files.store_folder(current.corpus.folder, [MANIFEST])
        if self.read_pointer(self.pointer(extraction)) != SealedJson(_said(current), True):
            self.write_current_corpus(extraction, current)

    def read_pointer(self, path: Path) -> SealedJson:
        """See ``read_pointer``, for a file of the store."""
        with self.files.reading(path) as copy:
            return read_pointer(copy)


def _said(current: CurrentCorpus) -> dict[str, Any]:
    """The fields of a pointer to a corpus."""
    form = {} if CORPUS_FORM == FIRST_VERSION else {"form": CORPUS_FORM}
    return {**current._asdict(), "corpus": current.corpus.manifest.fingerprint, **form}


def read_pointer(path: Path) -> SealedJson:
    """What a ``corpus.json`` says, see ``CurrentCorpus``; ``corpus`` is the fingerprint of one.

    Raises DamagedFileError, and FileNotFoundError if it does not exist.
    """
    found = read_sealed_json(path, TOKENIZE_AGAIN, CurrentCorpus._fields)
    texts = ("corpus", "recipe", "source", *(["version"] if found.sealed else []))
    check_fields(found.value, dict.fromkeys(texts, str), path, TOKENIZE_AGAIN)
    numbers = {name: int for name in (*_SIZES, "form") if found.value.get(name) is not None}
    check_fields(found.value, numbers, path, TOKENIZE_AGAIN)
    if not re.fullmatch(rf"[0-9a-f]{{{LENGTH}}}", found.value["corpus"]):
        raise damaged(path, "its 'corpus' is no fingerprint of one", TOKENIZE_AGAIN)
    return found
