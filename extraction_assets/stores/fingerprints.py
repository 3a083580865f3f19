"""Fingerprints: a short hash of everything that an artifact's bytes depend on, and of nothing else.

Every kind of ``VERSIONS`` has a version of its own. Raise it when the same inputs give content of another meaning: then
what is stored of this kind is stale, and so is what is made from it (test_raised_versions.py lists it). A file that
says the same in another form needs no new version but a new form (``chunk_names.FORMS``), and a statistic that is added
needs neither: files without it are read.
"""

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from extraction_assets.catalog import ASSETS, FIRST_VERSION

VERSIONS: dict[str, int] = {
    **{row.name: row.version for row in ASSETS},
    "hook_output": FIRST_VERSION,  # how a model computes
    "model": FIRST_VERSION,  # how its checkpoint is read
    "sae": FIRST_VERSION,  # how an SAE's checkpoint is read, and what it computes
    "tokenizer": FIRST_VERSION,  # how text becomes tokens and masks
}
"""Kind -> its version."""

IDENTITIES = frozenset({"documents", "files", "hub_dataset", "outputs", "source_files"})
"""Kinds that say which bytes something is made from, and nothing about their meaning. They have no version: where the
same bytes are read in another way, raise the kind that is made from them (``corpus`` for a source)."""

Key = TypeVar("Key")

LENGTH = 24
"""Hex digits of a fingerprint: 96 bits."""


def fingerprint(kind: str, **parts: Any) -> str:
    """Hash of JSON-like values under a kind of ``VERSIONS`` or ``IDENTITIES``. KeyError for any other."""
    version = FIRST_VERSION if kind in IDENTITIES else VERSIONS[kind]
    text = json.dumps({"kind": kind, "format": version, **parts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def raised_versions(*kinds: str) -> dict[str, Any]:
    """``{"versions": {kind: version}}`` of the kinds with a later version than the first, as a part of the fingerprints
    of what is made from them; empty if there are none, so that earlier fingerprints stay valid."""
    raised = {kind: VERSIONS[kind] for kind in kinds if VERSIONS[kind] != FIRST_VERSION}
    return {"versions": raised} if raised else {}


def fingerprint_if_more(kind: str, files: str, **options: Any) -> str:
    """Fingerprint of files under a kind of ``VERSIONS``: that of the files themselves, ``files``, as it always was,
    while there are no options and the kind has its first version."""
    return fingerprint(kind, files=files, **options) if options or raised_versions(kind) else files


def bytes_fingerprint(*parts: bytes | memoryview) -> str:
    """Hash of byte strings, their lengths included."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:LENGTH]


def files_fingerprint(files: Iterable[Path]) -> str:
    """Hash of files by name and content (``content_hash``). Raises FileNotFoundError if one is not a file."""
    return fingerprint("files", files=[(path.name, _content_hash_of(path)) for path in files])


def _content_hash_of(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or no file")
    with path.open("rb") as file:
        return content_hash(file)


def content_hash(file: BufferedReader) -> str:
    """SHA-256 of a file opened at its beginning, in hex digits.

    Read once a process while the file's state stays: inode, size and the times of its last change. A program may set
    the time of a file's contents, but not the other one (ctime), so that bytes that were altered are read again.
    """
    state, begun = _state(file), time.clock_gettime_ns(_FILES_CLOCK)
    known = _hashes.get(state)
    if known is not None:
        return known
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if _state(file) == state and state.changed_ns + SETTLED_NS < begun:
        _hashes.keep(state, found)
    return found


SETTLED_NS = 20_000_000
"""A file's state counts as stable 20 ms after its last change, by the clock that stamps files: it ticks every few
milliseconds, and the second of two changes within one tick is not visible."""

_FILES_CLOCK = 5 if sys.platform == "linux" else time.CLOCK_REALTIME
"""CLOCK_REALTIME_COARSE, for which Python has no name: it advances together with the stamps, however busy the machine
is."""


class Memo(Generic[Key]):
    """Hashes computed in this process, by what identifies the bytes; emptied when it holds many."""

    def __init__(self, most: int) -> None:
        self._most, self._known, self._lock = most, dict[Key, str](), threading.Lock()

    def get(self, key: Key) -> str | None:
        return self._known.get(key)

    def keep(self, key: Key, found: str) -> str:
        with self._lock:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = found
        return found


class _State(NamedTuple):
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


_hashes = Memo[_State](most=4096)


def _state(file: BufferedReader) -> _State:
    status = os.fstat(file.fileno())
    return _State(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
