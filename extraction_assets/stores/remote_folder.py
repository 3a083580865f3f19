"""A folder in object storage, or in any other that fsspec knows: its files are whole or absent.

A file arrives by one PUT, or by an upload of parts that is completed at its end. Where storage has no such thing, as an
SFTP server, the file gets its name by renaming. Names of files are relative to the folder, with ``/`` between parts.
"""

import contextlib
import datetime as dt
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from extraction_assets.stores.storage_patience import IMPATIENT, Patience
from extraction_assets.stores.storage_urls import StorageUrl, open_filesystem, plain_storage_errors

_WHOLE_BY_PUT = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "tos", "memory")
_READ_AT_ONCE = 4 << 20
PART_BYTES = 16 << 20
"""Of a part of an upload to S3. Two of a file are in memory at once, and a file of less than two comes in one PUT."""
_CHANGED = ("LastModified", "last_modified", "updated", "mtime", "created")
"""What clients call the time of a file's last change."""

Answer = TypeVar("Answer")


class Entry(NamedTuple):
    """What a listing says of a file."""

    size: int
    changed_at: float
    """Seconds since 1970; now, where storage does not say it."""
    tag: str = ""
    """Changes with the content, where storage has such a thing."""


class Upload(NamedTuple):
    """An upload of parts that was begun and not completed."""

    name: str
    number: str
    """By which storage knows it."""
    begun_at: float
    """Seconds since 1970."""


class RemoteFolder:
    """A folder at a URL, which comes to be with its first file. Every call raises StorageError where it fails; one that
    storage fails for a moment is repeated for as long as ``patience`` lasts."""

    def __init__(self, url: StorageUrl, opened: tuple[Any, str] | None = None, patience: Patience = IMPATIENT) -> None:
        self.url, self.patience = url, patience
        self._files, self._folder = opened or open_filesystem(url)

    @property
    def filesystem(self) -> Any:
        """fsspec's file system, for a program that opens files by itself."""
        return self._files

    def inside(self, name: str) -> "RemoteFolder":
        """A folder inside."""
        url = StorageUrl(self.url.scheme, f"{self.url.path}/{name}")
        return RemoteFolder(url, (self._files, self._path(name)), self.patience)

    def sizes(self) -> dict[str, int]:
        """The names of all files here and in folders inside, with their bytes. Storage lists them in pages."""
        return {name: entry.size for name, entry in self.entries().items()}

    def entries(self, name: str = "") -> dict[str, Entry]:
        """All files in a folder inside and in those inside it, by their names in this folder."""
        return self._call("listed", lambda: self._entries(name))

    def top(self) -> dict[str, Entry | None]:
        """Names of the files that lie here, and of folders, which have None."""
        return self._call("listed", self._top)

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes | None:
        """A small file, or a part of a file; None if it is not there."""

        def attempt() -> bytes:
            return bytes(self._files.cat_file(self._path(name), start=start, end=stop))

        return self._call("read", lambda: _unless_gone(attempt))

    def modified(self, name: str) -> float:
        """When a file was written, in seconds since 1970."""
        return self._call("read", lambda: float(self._files.modified(self._path(name)).timestamp()))

    def open(self, name: str) -> BinaryIO:
        """A file to read in any order, some MiB at a time."""
        return self._call("read", lambda: self._open(name))

    def fetch(self, name: str, path: Path) -> bool:
        """Copies a file to a local path; False if it is not there."""
        return self._call("read", lambda: _unless_gone(lambda: self._fetch(name, path))) is not None

    def put(self, path: Path, name: str) -> None:
        """Copies a local file here under its name, once all of it is there."""
        self._call("written", lambda: self._put(path, self._path(name)))

    def create(self, name: str, content: bytes) -> bool:
        """Writes a small file in one step if there is none of that name; False if there is one, of other content."""

        def attempt() -> bool:
            try:
                self._files.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return bool(self._files.cat_file(self._path(name)) == content)  # an answer was lost, and this repeats
            return True

        return self._call("written", attempt)

    def rename(self, name: str, new: str) -> bool:
        """Gives a file another name, by copying it where storage cannot rename; False if it is not there."""

        def attempt() -> bool:
            self._files.mv(self._path(name), self._path(new))
            return True

        return self._call("changed", lambda: _unless_gone(attempt)) is not None

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        self._call("changed", lambda: _unless_gone(lambda: self._files.rm_file(self._path(name))))

    def uploads(self, name: str = "") -> list[Upload]:
        """Uploads into a folder inside that were begun and not completed, of S3, where their parts cost money. Other
        storage forgets them by itself. None in a whole bucket, where they may be of other programs, nor where this user
        may not list them."""
        if "/" not in self._path(name).strip("/") or not hasattr(self._files, "abort_mpu"):
            return []
        with contextlib.suppress(PermissionError):
            return self._call("listed", lambda: list(self._uploads(name)), PermissionError)
        return []

    def abort(self, upload: Upload) -> None:
        """Removes the parts of an upload, if they are there."""
        bucket, _, key = self._path(upload.name).partition("/")
        self._call("changed", lambda: _unless_gone(lambda: self._files.abort_mpu(bucket, key, upload.number)))

    def abort_uploads(self) -> None:
        """Aborts the uploads into this folder that were never completed (``uploads``)."""
        for upload in self.uploads():
            self.abort(upload)

    def _call(self, what: str, attempt: Callable[[], Answer], *but: type[Exception]) -> Answer:
        """Errors of the types ``but`` stay what they are."""
        try:
            with plain_storage_errors(self.url, what):
                return self.patience.repeat(attempt, f"{self.url} cannot be {what}")
        except ValueError as error:
            if isinstance(error.__cause__, but):
                raise error.__cause__ from None
            raise

    def _entries(self, name: str) -> dict[str, Entry]:
        folder = self._path(name) if name else self._folder
        try:
            found: dict[str, dict[str, Any]] = self._files.find(folder, detail=True)
        except FileNotFoundError:
            self._files.ls(self._folder.partition("/")[0])  # the bucket, if that is what is not there
            return {}
        start = len(self._folder.strip("/")) + 1  # some paths have a slash in front
        return {path.strip("/")[start:]: _entry(said) for path, said in found.items()}

    def _top(self) -> dict[str, Entry | None]:
        try:
            found: list[dict[str, Any]] = self._files.ls(self._folder, detail=True)
        except FileNotFoundError:
            self._files.ls(self._folder.partition("/")[0])
            return {}
        names = {said["name"].strip("/").rpartition("/")[2]: said for said in found}
        return {name: None if said["type"] == "directory" else _entry(said) for name, said in names.items() if name}

    def _uploads(self, name: str) -> Iterator[Upload]:
        bucket, _, folder = self._path(name).partition("/")
        start = len(self._folder.partition("/")[2].strip("/")) + 1
        start = start if self._folder.partition("/")[2] else 0
        at: dict[str, str] = {}
        while True:
            page = self._files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{folder.rstrip('/')}/", **at)
            for one in page.get("Uploads", ()):
                yield Upload(one["Key"][start:], one["UploadId"], _seconds(one.get("Initiated")))
            if not page.get("IsTruncated"):
                return
            at = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self._files.open(self._path(name), "rb", block_size=_READ_AT_ONCE))

    def _fetch(self, name: str, path: Path) -> bool:
        self._files.get_file(self._path(name), str(path))
        return True

    def _put(self, path: Path, target: str) -> None:
        if self.url.scheme in _WHOLE_BY_PUT:
            parts = {"chunksize": PART_BYTES} if self.url.scheme in ("s3", "s3a") else {}
            self._files.put_file(str(path), target, **parts)
            return
        folder, _, name = target.rpartition("/")
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
        self._files.makedirs(folder, exist_ok=True)
        try:
            self._files.put_file(str(path), temporary)
            self._files.mv(temporary, target)
        except BaseException:
            with contextlib.suppress(Exception):  # the error that counts is the one above
                self._files.rm_file(temporary)
            raise

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if name else self._folder


def _unless_gone(attempt: Callable[[], Answer]) -> Answer | None:
    try:
        return attempt()
    except FileNotFoundError:
        return None


def _entry(said: dict[str, Any]) -> Entry:
    changed = next((said[name] for name in _CHANGED if said.get(name)), None)
    return Entry(int(said.get("size") or 0), _seconds(changed), str(said.get("ETag") or said.get("etag") or ""))


def _seconds(moment: Any) -> float:
    """Of a time as a client gives it; now, where it gives none."""
    if isinstance(moment, str):
        moment = dt.datetime.fromisoformat(moment)
    if isinstance(moment, dt.datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    return float(moment) if isinstance(moment, int | float) else time.time()
