"""A small stored corpus, and files as earlier versions and strangers leave them."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from extraction_assets.engine.corpora.tokenize import TokenizedCorpus
from extraction_assets.stores.chunk_store import ChunkStore, CurrentCorpus
from extraction_assets.stores.corpus_files import MANIFEST, StoredCorpus, write_corpus

DEEP = "[" * 200_000


def make_arrays(samples: int = 6, length: int = 4) -> TokenizedCorpus:
    """Every token counts; two documents."""
    ids = np.arange(samples * length, dtype=np.int32).reshape(samples, length)
    numbers = np.arange(samples, dtype=np.int64) // (samples // 2)
    return TokenizedCorpus(
        ids,
        np.ones_like(ids, dtype=np.bool_),
        np.zeros_like(ids, dtype=np.bool_),
        numbers,
        np.arange(samples, dtype=np.int64),
        ["a.txt", "b.txt"],
    )


def store_corpus(store: ChunkStore, corpus: TokenizedCorpus | None = None, start_sample: int = 0) -> StoredCorpus:
    """A corpus that the extraction ``tiny`` uses."""
    said = {"source": "texts", "tokenizer": "t" * 24, "packing": "documents", "start_sample": start_sample}
    stored = write_corpus(store.corpora, corpus or make_arrays(), **said)  # type: ignore[arg-type]
    store.write_current_corpus(
        "tiny", CurrentCorpus(stored, "r" * 24, "s" * 24, stored.manifest.fingerprint, 2, 50, None, None)
    )
    return stored


def as_of_an_earlier_version(store: ChunkStore) -> None:
    """Takes the checksums away that earlier versions did not write."""
    for path, ordered in ((store.pointer("tiny"), True), (next(store.corpora.glob(f"[0-9a-f]*/{MANIFEST}")), False)):
        value = {name: one for name, one in json.loads(path.read_text()).items() if name != "checksum"}
        if not ordered:
            value = {
                name: value[name] for name in ("fingerprint", "source", "tokenizer", "packing", "start_sample", "files")
            }
        path.write_text(json.dumps(value, indent=1, sort_keys=ordered))


def flipped(data: bytes, seed: int = 0) -> Iterator[bytes]:
    """The bytes with one bit of each byte flipped in turn; ``seed`` says which."""
    chosen = random.Random(seed)
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ 1 << chosen.randrange(8)]) + data[at + 1 :]


def _write(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def _circle(path: Path) -> None:
    other = path.with_name("other")
    other.symlink_to(path)
    path.symlink_to(other)


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "a list": _write(b"[]"),
    "a number": _write(b"3"),
    "null": _write(b"null"),
    "no JSON": _write(b"{"),
    "empty": _write(b""),
    "an empty object": _write(b"{}"),
    "nested deeply": _write(DEEP.encode()),
    "objects nested deeply": _write(b'{"a":' * 200_000),
    "a huge integer": _write(b'{"start_sample": ' + b"9" * 10_000 + b"}"),
    "not UTF-8": _write(b'{"source": "\xff\xfe"}'),
    "UTF-16": _write('{"corpus": "a"}'.encode("utf-16")),
    "a huge file": lambda path: os.truncate(_touched(path), 1 << 40),
    "a folder": Path.mkdir,
    "a named pipe": os.mkfifo,
    "links in a circle": _circle,
    "a link to a folder": lambda path: path.symlink_to(path.parent),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "fields of other types": _write(b'{"corpus": 3, "recipe": [], "source": {}, "fingerprint": 1, "files": []}'),
    "files that are no object": _write(
        b'{"fingerprint": "a", "source": "", "tokenizer": "", "packing": "", "start_sample": 0, "files": [1]}'
    ),
}
"""What may lie in the place of a JSON file."""


def _touched(path: Path) -> Path:
    path.touch()
    return path
