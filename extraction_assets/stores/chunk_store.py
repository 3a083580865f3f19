"""Where the files of extractions lie, and which of them are done."""

import os
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from extraction_assets.catalog import CORPUS, ChunkAsset, asset_row
from extraction_assets.stores.corpus_arrays import TOKENIZE_AGAIN
from extraction_assets.stores.corpus_files import StoredCorpus, open_corpus, seal_manifest
from extraction_assets.stores.fingerprints import LENGTH
from extraction_assets.stores.sealed import damaged
from extraction_assets.stores.sealed_json import SealedJson, check_fields, read_sealed_json, write_sealed_json

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
    """The size of the source, see ``SourceIdentity``; None where an earlier version of this package made the corpus."""
    characters: int | None = None
    files: int | None = None
    bytes: int | None = None
    reading: int | None = None


_SIZES = ("documents", "characters", "files", "bytes", "reading")


class ChunkStore:
    """Files under one root folder: ``corpora/<fingerprint>/``, and for each extraction a folder that mirrors its
    asset keys, ``<extraction>[/<sae>]/<asset>/<chunk key>-<fingerprint>.<suffix>``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def corpora(self) -> Path:
        return self.root / "corpora"

    def asset_folder(self, extraction: str, asset: str, sae: str | None = None) -> Path:
        return self.root / extraction / sae / asset if sae else self.root / extraction / asset

    def asset_file(self, extraction: str, asset: str, sae: str | None = None) -> Path:
        """The one file of an asset that is made once."""
        return self.asset_folder(extraction, asset, sae) / str(asset_row(asset).file)

    def chunk_path(self, extraction: str, asset: ChunkAsset, sae: str | None, key: str, fingerprint: str) -> Path:
        """Path of a chunk's file; the fingerprint in it lets an older result stand until the new one is there."""
        return self.asset_folder(extraction, asset, sae) / f"{key}-{fingerprint}{suffix(asset)}"

    def chunk_state(
        self, extraction: str, asset: ChunkAsset, sae: str | None, key: str, fingerprint: str
    ) -> ChunkState:
        """``done``: there is a durable file of this fingerprint; ``stale``: only of others; ``missing``: of none.
        What is no file in the place of one, such as a folder or a named pipe, does not count.

        The one function that schedules, retries, ``--missing`` and ``status`` ask.
        """
        path = self.chunk_path(extraction, asset, sae, key, fingerprint)
        if path.is_file():
            return "done"
        return "stale" if any(other != path for other in path.parent.glob(f"{key}-*{path.suffix}")) else "missing"

    def stored_keys(self, extraction: str, asset: ChunkAsset, sae: str | None = None) -> set[str]:
        """Keys of the chunks that have a file of any fingerprint, be it an old one."""
        folder = self.asset_folder(extraction, asset, sae)
        return {path.name.split("-")[0] for path in folder.glob(f"[0-9]*-*{suffix(asset)}")}

    def write_current_corpus(self, extraction: str, current: CurrentCorpus) -> None:
        """Note which corpus an extraction uses, and what it was made from."""
        write_sealed_json(self.pointer(extraction), _said(current))

    def pointer(self, extraction: str) -> Path:
        """The file that says which corpus an extraction uses."""
        return self.root / extraction / str(asset_row(CORPUS).file)

    def current_corpus(self, extraction: str) -> CurrentCorpus | None:
        """The last materialized corpus; None before the first.

        Of a pointer that an earlier version wrote without a checksum, only that is taken which its reader compares with
        what it works out itself. Raises DamagedFileError where its files are cut, altered or gone.
        """
        path = self.pointer(extraction)
        if not os.path.lexists(path):
            return None
        said, sealed = read_pointer(path)
        try:
            corpus = open_corpus(self.corpora, said["corpus"])
        except FileNotFoundError as error:
            raise damaged(self.corpora / said["corpus"], "it is gone", TOKENIZE_AGAIN) from error
        if not sealed:
            return CurrentCorpus(corpus, said["recipe"], said["source"], said["corpus"])
        later = {name: said.get(name) for name in _SIZES}
        return CurrentCorpus(corpus, said["recipe"], said["source"], said["version"], **later)

    def keep_current_corpus(self, extraction: str, current: CurrentCorpus) -> None:
        """Writes again what an earlier version stored without checksums or says otherwise; else does nothing."""
        seal_manifest(current.corpus)
        if read_pointer(self.pointer(extraction)) != SealedJson(_said(current), True):
            self.write_current_corpus(extraction, current)


def suffix(name: ChunkAsset) -> str:
    """How the names of an asset's chunk files end."""
    return str(asset_row(name).file)


def size_of_file(path: Path) -> int:
    """Bytes of a file, a link followed; 0 where it has gone meanwhile or is a circle of links."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _said(current: CurrentCorpus) -> dict[str, Any]:
    """What a pointer says of a corpus."""
    return {**current._asdict(), "corpus": current.corpus.manifest.fingerprint}


def read_pointer(path: Path) -> SealedJson:
    """What a ``corpus.json`` says, see ``CurrentCorpus``; ``corpus`` is the fingerprint of one.

    Raises DamagedFileError, FileNotFoundError where there is none.
    """
    found = read_sealed_json(path, TOKENIZE_AGAIN, CurrentCorpus._fields)
    texts = ("corpus", "recipe", "source", *(["version"] if found.sealed else []))
    check_fields(found.value, dict.fromkeys(texts, str), path, TOKENIZE_AGAIN)
    sizes = {name: int for name in _SIZES if found.value.get(name) is not None}
    check_fields(found.value, sizes, path, TOKENIZE_AGAIN)
    if not re.fullmatch(rf"[0-9a-f]{{{LENGTH}}}", found.value["corpus"]):
        raise damaged(path, "its 'corpus' is no fingerprint of one", TOKENIZE_AGAIN)
    return found
