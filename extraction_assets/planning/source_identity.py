"""The identity of a corpus source's state, without tokenizing it."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from extraction_assets.catalog import FIRST_VERSION
from extraction_assets.engine.corpora import decoding
from extraction_assets.engine.corpora.documents import Source, relative_names
from extraction_assets.engine.corpora.hub_datasets import HubDataset
from extraction_assets.engine.corpora.text_files import TextFiles
from extraction_assets.stores.chunk_store import SourceIdentity
from extraction_assets.stores.fingerprints import LENGTH, files_fingerprint, fingerprint


def source_identity(source: Source, *, reads_text: bool = True) -> SourceIdentity:
    """The identity of a source: text files by their names and texts, files of many documents by their bytes, a hub data
    set by its commit. The last two include the version of the rule that decodes text, unless tokens are read.

    Raises CorpusError if the source cannot be read.
    """
    if isinstance(source, TextFiles):
        return _documents_identity(source.documents())
    reading = decoding.RULES if reads_text else None
    if isinstance(source, HubDataset):
        return SourceIdentity(fingerprint("hub_dataset", commit=source.version), reading=reading)
    folder = Path(os.path.commonpath([path.parent for path in source.files]))
    names = relative_names(source.files, folder)  # part of the documents' ids
    content = fingerprint("source_files", names=names, contents=files_fingerprint(source.files))
    size = sum(path.stat().st_size for path in source.files)
    return SourceIdentity(content, files=len(source.files), bytes=size, reading=reading)


def file_times(source: Source) -> list[tuple[str, int, int]]:
    """(path, bytes, time of the last change) of each file: what shows that one was changed while it was read."""
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in source.files]


def _documents_identity(documents: Iterable[tuple[str, str]]) -> SourceIdentity:
    """``fingerprint("documents", documents=...)`` without holding more than one document."""
    digest, count, characters = hashlib.sha256(b'{"documents":['), 0, 0
    for name, text in documents:
        digest.update(b"," if count else b"")
        digest.update(json.dumps([name, text], separators=(",", ":")).encode())
        count, characters = count + 1, characters + len(text)
    digest.update(f'],"format":{FIRST_VERSION},"kind":"documents"}}'.encode())
    return SourceIdentity(digest.hexdigest()[:LENGTH], count, characters)
