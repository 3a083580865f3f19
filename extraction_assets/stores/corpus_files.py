"""Stored corpora: memory-mappable arrays with a manifest, in a folder named after their content."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from extraction_assets.engine.corpus import TokenizedCorpus
from extraction_assets.engine.shapes import Samples
from extraction_assets.stores.fingerprints import LENGTH, bytes_fingerprint
from extraction_assets.stores.sealed import DamagedFileError, durable_path, sync

MANIFEST = "manifest.json"
_ARRAYS = ("token_ids", "attention_mask", "special_tokens_mask", "document_numbers", "first_tokens")
_DOCUMENTS = "document_ids.json"


class CorpusManifest(NamedTuple):
    """What a stored corpus says of itself."""

    fingerprint: str
    """Hash of the content: equal corpora have equal fingerprints."""
    source: str
    tokenizer: str
    packing: str
    start_sample: int
    files: dict[str, str]
    """File name -> SHA-256."""


class StoredCorpus:
    """A corpus on disk; arrays are memory-mapped when they are first looked at."""

    def __init__(self, folder: Path, manifest: CorpusManifest) -> None:
        self.folder, self.manifest = folder, manifest

    @cached_property
    def arrays(self) -> TokenizedCorpus:
        mapped = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return TokenizedCorpus(**mapped, document_ids=json.loads((self.folder / _DOCUMENTS).read_text("utf-8")))

    def __len__(self) -> int:
        return len(self.arrays.token_ids)

    def samples(
        self,
        rows: slice,
        *,
        count_special_tokens: bool,
        exclude_first_positions: int,
        exclude_positions: Sequence[int] = (),
    ) -> Samples:
        """Rows of the corpus as tensors, with the positions that count."""
        return samples_of(
            self.arrays,
            rows,
            self.manifest.start_sample,
            count_special_tokens=count_special_tokens,
            exclude_first_positions=exclude_first_positions,
            exclude_positions=exclude_positions,
        )

    def content_fingerprint(self, rows: slice) -> str:
        """Hash of some samples' tokens, masks and documents."""
        arrays = self.arrays
        names = [arrays.document_ids[number] for number in arrays.document_numbers[rows]]
        return bytes_fingerprint(
            *(
                np.ascontiguousarray(getattr(arrays, name)[rows]).tobytes()
                for name in _ARRAYS
                if name != "document_numbers"
            ),
            json.dumps(names).encode(),
        )


def samples_of(
    arrays: TokenizedCorpus,
    rows: slice,
    start_sample: int,
    *,
    count_special_tokens: bool,
    exclude_first_positions: int,
    exclude_positions: Sequence[int] = (),
) -> Samples:
    """Rows of a corpus whose first sample is number ``start_sample``, as tensors, with the positions that count."""
    attention = torch.from_numpy(np.array(arrays.attention_mask[rows]))
    counted = attention.clone()
    if not count_special_tokens:
        counted &= ~torch.from_numpy(np.array(arrays.special_tokens_mask[rows]))
    counted[:, :exclude_first_positions] = False
    counted[:, list(exclude_positions)] = False
    token_ids = torch.from_numpy(arrays.token_ids[rows].astype(np.int64))
    return Samples(token_ids, attention, counted, start_sample + rows.start)


def write_corpus(
    root: Path, corpus: TokenizedCorpus, *, source: str, tokenizer: str, packing: str, start_sample: int
) -> StoredCorpus:
    """Store a corpus under ``root`` by its content; an equal one that is there already is used instead."""
    temporary = root / f".{uuid.uuid4().hex}.tmp"
    temporary.mkdir(parents=True)
    try:
        files = _write_files(temporary, corpus)
        identity = json.dumps([files, source, tokenizer, packing, start_sample]).encode()
        manifest = CorpusManifest(
            hashlib.sha256(identity).hexdigest()[:LENGTH], source, tokenizer, packing, start_sample, files
        )
        (temporary / MANIFEST).write_text(json.dumps(manifest._asdict(), indent=1))
        for path in temporary.iterdir():
            sync(path)
        sync(temporary)
        _put_in_place(temporary, root / manifest.fingerprint)
        sync(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_corpus(root, manifest.fingerprint)


def _write_files(folder: Path, corpus: TokenizedCorpus) -> dict[str, str]:
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(corpus, name))
    (folder / _DOCUMENTS).write_text(json.dumps(corpus.document_ids), "utf-8")
    return {path.name: _sha256(path) for path in sorted(folder.iterdir())}


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename into place; a folder that is there already is replaced only where it is damaged."""
    if folder.exists():
        try:
            open_corpus(folder.parent, folder.name)
            return
        except (DamagedFileError, FileNotFoundError):
            os.replace(folder, folder.with_name(f".{uuid.uuid4().hex}.damaged"))
    try:
        os.replace(temporary, folder)
    except OSError:
        open_corpus(folder.parent, folder.name)  # an equal one has arrived meanwhile, or this says what is wrong


def open_corpus(root: Path, fingerprint: str) -> StoredCorpus:
    """The stored corpus with this fingerprint, after checking its files.

    Raises FileNotFoundError where it is absent, DamagedFileError that names a file that is cut or altered.
    """
    folder = root / fingerprint
    manifest = CorpusManifest(**_read_json(folder / MANIFEST))
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise DamagedFileError(f"{path} is damaged or missing: delete {folder} and materialize the corpus again")
    return StoredCorpus(folder, manifest)


def write_json(path: Path, value: Any) -> None:
    """A small JSON file, durable and whole."""
    with durable_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True), "utf-8")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DamagedFileError(f"{path} is damaged ({error})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
