"""Where the files of an export lie: in a folder of this machine, or at a URL. A file that is there is whole."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from extraction_assets.exports.errors import ExportError
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.sealed import durable_path
from extraction_assets.stores.storage_urls import StorageError, is_remote, local_path, parse_storage_url

_LOCK = ".export.lock"
_TEMPORARIES = ".*.tmp"


class ExportFolder(Protocol):
    """A folder that an export writes into; names are relative to it."""

    def inside(self, name: str) -> "ExportFolder":
        """A folder inside it."""

    def holds(self, name: str) -> bool:
        """Whether a file is there."""

    def entries(self) -> set[str]:
        """Names of the files and folders in it, but for what marks it as written to."""

    def sizes(self) -> dict[str, int]:
        """All files in it and in folders inside, with their bytes."""

    def read(self, name: str) -> bytes | None:
        """A small file; None if it is not there."""

    def open(self, name: str) -> BinaryIO:
        """A file, to read from any place of it."""

    def file(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A temporary path, whose file gets its name at the end of the block."""

    def remove(self, name: str) -> None:
        """Removes a file, if it is there, and its folder once that is empty."""

    def remove_unfinished(self) -> None:
        """Removes what exports that were killed left half written."""

    def only_writer(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other exports out, as far as that can be known."""


def stored_folder(store: ChunkStore, path: Path) -> ExportFolder:
    """A folder of a chunk store."""
    remote = store.files.remote(path)
    return LocalFolder(path) if remote is None else FolderAtUrl(remote)


def export_folder_at(out: str) -> ExportFolder:
    """The folder that ``--out`` names by its path or URL. Raises ExportError for one that cannot be."""
    try:
        if is_remote(out):
            return FolderAtUrl(RemoteFolder(parse_storage_url(out)))
        return LocalFolder(Path(local_path(out)).expanduser().absolute())
    except StorageError as error:
        raise ExportError(str(error)) from error
    except RuntimeError as error:  # ~nobody
        raise ExportError(f"{out} is in the home of a user who is not known: give a folder") from error


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def inside(self, name: str) -> "LocalFolder":
        return LocalFolder(self.path / name)

    def holds(self, name: str) -> bool:
        return (self.path / name).is_file()

    def entries(self) -> set[str]:
        return {path.name for path in self.path.iterdir()} - {_LOCK} if self.path.is_dir() else set()

    def sizes(self) -> dict[str, int]:
        files = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in files}

    def read(self, name: str) -> bytes | None:
        return (self.path / name).read_bytes() if self.holds(name) else None

    def open(self, name: str) -> BinaryIO:
        return (self.path / name).open("rb")

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable_path(path) as temporary:
            yield temporary

    def remove(self, name: str) -> None:
        path = self.path / name
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or never made
            path.parent.rmdir()

    def remove_unfinished(self) -> None:
        for temporary in self.path.rglob(_TEMPORARIES):
            temporary.unlink(missing_ok=True)

    def _lock_file(self) -> int:
        """The open file of the lock, in a folder that is made. Raises ExportError."""
        try:
            if self.path.exists() and not self.path.is_dir():
                raise ExportError(f"{self} is a file: give a folder")
            self.path.mkdir(parents=True, exist_ok=True)
            return os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ExportError(f"{self} cannot be written into ({reason}): give another folder") from error

    @contextlib.contextmanager
    def only_writer(self) -> Iterator[None]:
        """The kernel lets go of the lock if the process dies. Raises ExportError if another export is at work."""
        handle = self._lock_file()
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ExportError(
                    f"another export is writing into {self}: wait for it, or give another folder"
                ) from None
            try:
                yield
            finally:
                (self.path / _LOCK).unlink(missing_ok=True)
        finally:
            os.close(handle)


class FolderAtUrl:
    """A folder in object storage, which is listed once; a file is uploaded when it is whole.

    Scratch is that of one file, in TMPDIR. Storage has no locks: two exports into one folder at once write the same
    files, if they are the same export.
    """

    def __init__(self, folder: RemoteFolder) -> None:
        self._folder = folder
        self._known: set[str] | None = None

    def __str__(self) -> str:
        return str(self._folder.url)

    def inside(self, name: str) -> "FolderAtUrl":
        return FolderAtUrl(self._folder.inside(name)) if name else self

    def holds(self, name: str) -> bool:
        return name in self._names()

    def entries(self) -> set[str]:
        return {name.partition("/")[0] for name in self._names()}

    def sizes(self) -> dict[str, int]:
        return self._folder.sizes()

    def read(self, name: str) -> bytes | None:
        return self._folder.read(name)

    def open(self, name: str) -> BinaryIO:
        return self._folder.open(name)

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="extraction-assets-") as scratch:
            path = Path(scratch) / name.rpartition("/")[2]
            path.touch()
            yield path
            self._folder.put(path, name)
        self._names().add(name)

    def remove(self, name: str) -> None:
        if self.holds(name):
            self._folder.remove(name)
            self._names().discard(name)

    def remove_unfinished(self) -> None:
        self._folder.abort_uploads()

    @contextlib.contextmanager
    def only_writer(self) -> Iterator[None]:
        yield

    def _names(self) -> set[str]:
        if self._known is None:
            self._known = set(self._folder.sizes())
        return self._known
