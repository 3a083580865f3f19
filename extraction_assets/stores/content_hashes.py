"""Hashes of whole files, each read once a process; large checkpoints once a machine, while nobody writes to them."""

import contextlib
import hashlib
import os
import sys
import threading
import time
from io import BufferedReader
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from extraction_assets.host.locations import extraction_home
from extraction_assets.stores.sealed import DamagedFileError
from extraction_assets.stores.sealed_json import read_sealed_json, write_sealed_json

Key = TypeVar("Key")

REMEMBERED = ".content_hashes.json"
"""In the extraction home; may be removed at any time."""
LARGE_BYTES = 64 << 20
"""Files from this size on are remembered from one process to the next: SHA-256 reads 1 to 2 GB a second."""
SETTLED_NS = 20_000_000
"""A file's state counts as stable 20 ms after its last change, by the clock that stamps files: it ticks every few
milliseconds, and the second of two changes within one tick is not visible."""

_MOST_REMEMBERED = 4096
_FILES_CLOCK = 5 if sys.platform == "linux" else time.CLOCK_REALTIME
"""CLOCK_REALTIME_COARSE, for which Python has no name: it advances together with the stamps, however busy the machine
is."""


class ChangedFileError(ValueError):
    """A file is not what a process took it for when it began."""


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

    def forget(self, key: Key) -> None:
        with self._lock:
            self._known.pop(key, None)


class _State(NamedTuple):
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @property
    def key(self) -> str:
        return ":".join(map(str, self))


_hashes = Memo[_State](most=4096)
_on_trust = dict[Path, _State]()
"""Files whose hash an earlier process computed, and which this one has not read."""
_written = set[tuple[Path, _State]]()
"""What this process has seen to be remembered, and where."""
_trust = threading.Lock()
"""Held while a hash is taken on trust, remembered or forgotten: one that a thread forgets because it is wrong is not to
come back by another that was about to take or to remember it."""


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


def file_content_hash(path: Path, *, on_trust: bool = False) -> str:
    """As ``content_hash``, of a file by its path. Raises FileNotFoundError if there is no such file.

    A large one that an earlier process of this machine has read may be taken ``on_trust`` while its state stays. What
    is made of such a file is recorded only after ``read_files_on_trust``: no program writes without a trace, but a disk
    may.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or no file")
    with path.open("rb") as file:
        state = _state(file)
        if not on_trust or state.size < LARGE_BYTES:
            return content_hash(file)
        return _hash_of_large(file, path, state)


def _hash_of_large(file: BufferedReader, path: Path, state: _State) -> str:
    remembered = extraction_home() / REMEMBERED
    with _trust:
        if (remembered, state) not in _written and _hashes.get(state) is None:
            known = _remembered(remembered).get(state.key)
            if known is not None:
                _on_trust[path] = state
                _hashes.keep(state, known)
    found = content_hash(file)
    with _trust:
        # not of a file that changes at this moment, nor what another thread has just found to be wrong
        if (remembered, state) not in _written and _hashes.get(state) == found:
            before = _remembered(remembered)
            _remember(remembered, {**(before if len(before) < _MOST_REMEMBERED else {}), state.key: found})
            _written.add((remembered, state))
    return found


def read_files_on_trust() -> None:
    """Reads the files that were taken on trust, each once a process. Raises ChangedFileError if some were written to or
    replaced since, or hold other bytes than they did for the process that hashed them; their hashes are forgotten."""
    with _trust:
        taken = list(_on_trust.items())
    faults = []
    for path, state in taken:
        fault = _fault_of(path, state)
        with _trust:
            if fault is not None:
                faults.append(fault)
                _forget(state)
            if _on_trust.get(path) == state:
                del _on_trust[path]  # not before: another run would take it for read, and so would one after an error
    if faults:
        raise ChangedFileError("; ".join(faults))


def _fault_of(path: Path, state: _State) -> str | None:
    """What is wrong with a file whose hash was taken on trust."""
    with path.open("rb") as file:
        if _state(file) != state:
            return f"{path} was written to or replaced while a run was using it: start the run again"
        if hashlib.file_digest(file, "sha256").hexdigest() == _hashes.get(state):
            return None
    return (
        f"{path} does not hold the bytes that it held for an earlier command, and no program has written to it "
        "since: its disk may be failing. Download or copy it again, then start again"
    )


def _forget(state: _State) -> None:
    """The hash of a file, here and for later processes."""
    _hashes.forget(state)
    remembered = extraction_home() / REMEMBERED
    _written.discard((remembered, state))
    _remember(remembered, {key: found for key, found in _remembered(remembered).items() if key != state.key})


def _remembered(path: Path) -> dict[str, str]:
    """{state: hash} as the file holds it; empty if it is missing or damaged."""
    try:
        found = read_sealed_json(path, "", ()).value
    except (OSError, DamagedFileError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _remember(path: Path, found: dict[str, str]) -> None:
    """Replaces what is remembered; where that cannot be written, the next process reads the files again."""
    with contextlib.suppress(OSError):
        write_sealed_json(path, found)


def _state(file: BufferedReader) -> _State:
    status = os.fstat(file.fileno())
    return _State(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
