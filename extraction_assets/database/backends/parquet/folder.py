"""The folder that holds Parquet results: one of this machine, or a URL of object storage.

``manifests/`` has one file for each of the last changes, whose name is its number: whoever creates a number has made
that change. Data files have names that no other ever gets.
"""

import contextlib
import errno
import fcntl
import os
import re
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from extraction_assets.database.backends.parquet.manifest import NOTHING, Manifest, parse_manifest
from extraction_assets.database.errors import DatabaseError, DatabaseUnavailableError
from extraction_assets.stores.remote_folder import RemoteFolder, Upload
from extraction_assets.stores.storage_patience import Patience
from extraction_assets.stores.storage_urls import StorageError, parse_storage_url

MARK = "parquet_results.json"
"""Says that a folder holds results: the first thing in it."""

SCRIPT = "results.sql"
"""For a person's DuckDB."""

WAIT_SECONDS = 120
"""How long a writer waits for another of this machine to finish."""

MANIFESTS = "manifests"
_NUMBERED = re.compile(r"(\d{12})\.json")
_DATA = re.compile(r"\w+/(\d+-)?[0-9a-f]{32}\.parquet")
_DRAFT = re.compile(r"(?P<folder>\w+/)?\.?(?P<name>[\w.-]+)\.[0-9a-f]{32}\.tmp")
"""What a writer had not given its name yet, as ``LocalFolder`` and ``RemoteFolder`` call it."""
_STORAGE_SECONDS = 60.0


class Found(NamedTuple):
    """A file that is there."""

    age: float
    """In seconds."""
    bytes: int


class ResultsFolder(Protocol):
    """Where the files are. Calls raise DatabaseError or OSError."""

    @property
    def place(self) -> str:
        """For messages."""

    @property
    def filesystem(self) -> Any | None:
        """fsspec's file system for ``address``; None where these are paths."""

    @property
    def orphan_seconds(self) -> float:
        """After how long a file that no manifest names is of a writer that has died."""

    @property
    def look_seconds(self) -> float:
        """For how long what ``numbers`` said is believed."""

    def address(self, name: str) -> str:
        """Where a file is, as DuckDB opens it."""

    def numbers(self) -> list[int]:
        """Numbers of the manifests, ascending."""

    def read(self, name: str) -> bytes | None:
        """A small file; None if it is not there."""

    def create(self, name: str, content: bytes) -> bool:
        """Writes a small file, durably; False if there is one of that name, which stays."""

    def put(self, name: str, content: bytes) -> None:
        """Writes a small file, whole, in the place of one of that name."""

    def drafting(self, name: str) -> AbstractContextManager[Path]:
        """A path to write a file to, which is durable under its name when the block has ended."""

    def found(self) -> dict[str, "Found"]:
        """The data files by name, and what writers have not given its name yet; nothing that others keep in the
        folder."""

    def remove(self, name: str) -> None:
        """Removes a file of ``found``, if it is there."""

    def locked(self) -> AbstractContextManager[None]:
        """Waits for other writers, and keeps them waiting: those of this machine, or for storage those of this object,
        whose sessions share one DuckDB."""


def manifest_name(number: int) -> str:
    """The file of a number."""
    return f"{MANIFESTS}/{number:012d}.json"


def read_manifest(folder: ResultsFolder, number: int) -> Manifest:
    """The manifest of a number. Raises DatabaseError if it is damaged or of a later version."""
    if not number:
        return NOTHING
    text = folder.read(manifest_name(number))
    if text is None:
        raise DatabaseUnavailableError(f"the results in {folder.place} have changed {number} times and more: try again")
    try:
        return parse_manifest(text)
    except ValueError as error:
        raise DatabaseError(
            f"{manifest_name(number)} of the results in {folder.place} cannot be read: {error}; upgrade "
            "extraction_assets, or remove the folder and merge again"
        ) from error


class LocalFolder:
    """See ``ResultsFolder``."""

    filesystem = None
    orphan_seconds = 0.0  # whoever holds the lock is the only writer
    look_seconds = 0.0

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def place(self) -> str:
        return str(self.root)

    def address(self, name: str) -> str:
        return str(self.root / name)

    def numbers(self) -> list[int]:
        try:
            return _numbers(os.listdir(self.root / MANIFESTS))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def create(self, name: str, content: bytes) -> bool:
        with self._written(name, content) as draft:
            try:
                os.link(draft, self.root / name)  # fails where there is one, in one step
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP):
                    raise
                raise DatabaseError(
                    f"the disk of {self.root} has no hard links, by which results change in one step: choose a folder "
                    "on another one"
                ) from error
        _flush(self.root / name)
        return True

    def put(self, name: str, content: bytes) -> None:
        with self._written(name, content) as draft:
            os.replace(draft, self.root / name)

    @contextlib.contextmanager
    def drafting(self, name: str) -> Iterator[Path]:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield path  # no manifest names it yet
            _flush(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def found(self) -> dict[str, Found]:
        now, found = time.time(), dict[str, Found]()
        paths = chain.from_iterable(map(self.root.glob, ("*/*.parquet", "*/*.tmp", "*.tmp")))
        for name in filter(_is_ours, (str(path.relative_to(self.root)) for path in paths)):
            with contextlib.suppress(FileNotFoundError):
                said = (self.root / name).stat()
                found[name] = Found(now - said.st_mtime, said.st_size)
        return found

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            _wait_for(lock.fileno(), self.place)
            yield

    @contextlib.contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[Path]:
        """A file beside the one of a name, flushed; it is gone after the block."""
        draft = self.root / f"{name}.{uuid.uuid4().hex}.tmp"
        draft.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            _flush(draft)
            yield draft
        finally:
            draft.unlink(missing_ok=True)


class StorageFolder:
    """See ``ResultsFolder``."""

    orphan_seconds = 24 * 3600.0  # no lock is for other hosts: one may be writing it
    look_seconds = 1.0

    def __init__(self, url: str) -> None:
        try:
            self._folder = RemoteFolder(parse_storage_url(url), patience=Patience(_STORAGE_SECONDS))
        except StorageError as error:
            raise DatabaseError(str(error)) from error
        self._writing = threading.Lock()
        self._uploads: dict[str, Upload] = {}

    @property
    def place(self) -> str:
        return str(self._folder.url)

    @property
    def filesystem(self) -> Any:
        return self._folder.filesystem

    def address(self, name: str) -> str:
        return f"{self._folder.url}/{name}"

    def numbers(self) -> list[int]:
        with _as_database_errors():
            return _numbers(list(self._folder.inside(MANIFESTS).top()))

    def read(self, name: str) -> bytes | None:
        with _as_database_errors():
            return self._folder.read(name)

    def create(self, name: str, content: bytes) -> bool:
        with _as_database_errors():
            return self._folder.create(name, content)

    def put(self, name: str, content: bytes) -> None:
        with self.drafting(name) as path:
            path.write_bytes(content)

    @contextlib.contextmanager
    def drafting(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="extraction-assets-") as scratch:
            path = Path(scratch) / "file"
            yield path
            with _as_database_errors():
                self._folder.put(path, name)

    def found(self) -> dict[str, Found]:
        with _as_database_errors():
            now, entries = time.time(), self._folder.entries()
            self._uploads = {
                f"{one.name} {one.number}": one for one in self._folder.uploads() if _DATA.fullmatch(one.name)
            }
        files = {name: Found(now - entry.changed_at, entry.size) for name, entry in entries.items() if _is_ours(name)}
        return files | {name: Found(now - one.begun_at, 0) for name, one in self._uploads.items()}

    def remove(self, name: str) -> None:
        with _as_database_errors():
            if (upload := self._uploads.pop(name, None)) is not None:
                self._folder.abort(upload)
            else:
                self._folder.remove(name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=WAIT_SECONDS):
            raise _still_writing(self.place)
        try:
            yield
        finally:
            self._writing.release()


def _is_ours(name: str) -> bool:
    """Whether a file is data, or a draft of what is written here: a chunk store, whose drafts are called alike, may lie
    in the same folder."""
    draft = _DRAFT.fullmatch(name)
    if draft is None:
        return _DATA.fullmatch(name) is not None
    folder, name = draft["folder"] or "", draft["name"]
    if folder == f"{MANIFESTS}/":
        return _NUMBERED.fullmatch(name) is not None
    return _DATA.fullmatch(folder + name) is not None or (not folder and name in (MARK, SCRIPT))


def _numbers(names: list[str]) -> list[int]:
    return sorted(int(found[1]) for name in names if (found := _NUMBERED.fullmatch(name)))


def _flush(path: Path) -> None:
    """A file, and its name in its folder."""
    for place in (path, path.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _wait_for(descriptor: int, place: str) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise _still_writing(place) from None
            time.sleep(0.02)
        else:
            return


def _still_writing(place: str) -> DatabaseUnavailableError:
    return DatabaseUnavailableError(f"another program has been writing to the results in {place} for {WAIT_SECONDS} s")


@contextlib.contextmanager
def _as_database_errors() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise DatabaseUnavailableError(f"the results cannot be reached: {error}") from error
