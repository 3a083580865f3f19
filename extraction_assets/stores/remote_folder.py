"""A folder in object storage, or in any other that fsspec knows: its files are whole or absent.

A file arrives by one PUT, or by an upload of parts that is completed at its end. Where storage has no such thing, as an
SFTP server, the file gets its name by renaming. Names of files are relative to the folder, with ``/`` between parts.
"""

import contextlib
import uuid
from pathlib import Path
from typing import Any, BinaryIO, cast

from extraction_assets.stores.storage_urls import StorageUrl, open_filesystem, plain_storage_errors

_WHOLE_BY_PUT = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "tos", "memory")
_READ_AT_ONCE = 4 << 20


class RemoteFolder:
    """A folder at a URL, which comes to be with its first file. Every call raises StorageError where it fails."""

    def __init__(self, url: StorageUrl, opened: tuple[Any, str] | None = None) -> None:
        self.url = url
        self._files, self._folder = opened or open_filesystem(url)

    def inside(self, name: str) -> "RemoteFolder":
        """A folder inside."""
        return RemoteFolder(StorageUrl(self.url.scheme, f"{self.url.path}/{name}"), (self._files, self._path(name)))

    def sizes(self) -> dict[str, int]:
        """The names of all files here and in folders inside, with their bytes. Storage lists them in pages."""
        with plain_storage_errors(self.url, "listed"):
            try:
                found: dict[str, dict[str, Any]] = self._files.find(self._folder, detail=True)
            except FileNotFoundError:
                self._files.ls(self._folder.partition("/")[0])  # the bucket, if that is what is not there
                return {}
        start = len(self._folder.strip("/")) + 1  # some paths have a slash in front
        return {path.strip("/")[start:]: int(said.get("size") or 0) for path, said in found.items()}

    def read(self, name: str) -> bytes | None:
        """A small file; None if it is not there."""
        with plain_storage_errors(self.url, "read"):
            try:
                return bytes(self._files.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def modified(self, name: str) -> float:
        """When a file was written, in seconds since 1970."""
        with plain_storage_errors(self.url, "read"):
            return float(self._files.modified(self._path(name)).timestamp())

    def open(self, name: str) -> BinaryIO:
        """A file to read in any order, some MiB at a time."""
        with plain_storage_errors(self.url, "read"):
            return cast(BinaryIO, self._files.open(self._path(name), "rb", block_size=_READ_AT_ONCE))

    def fetch(self, name: str, path: Path) -> None:
        """Copies a file to a local path."""
        with plain_storage_errors(self.url, "read"):
            self._files.get_file(self._path(name), str(path))

    def put(self, path: Path, name: str) -> None:
        """Copies a local file here under its name, once all of it is there."""
        with plain_storage_errors(self.url, "written"):
            self._put(path, self._path(name))

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with plain_storage_errors(self.url, "changed"), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def abort_uploads(self) -> None:
        """Aborts the uploads into this folder that were never completed, of S3, where their parts cost money. In a
        whole bucket they may be of other programs, and stay."""
        bucket, _, prefix = self._folder.partition("/")
        if not prefix or not hasattr(self._files, "abort_mpu"):
            return
        with plain_storage_errors(self.url, "changed"), contextlib.suppress(PermissionError):  # not allowed to list
            found = self._files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
            for upload in found.get("Uploads", ()):
                self._files.abort_mpu(bucket, upload["Key"], upload["UploadId"])

    def _put(self, path: Path, target: str) -> None:
        if self.url.scheme in _WHOLE_BY_PUT:
            self._files.put_file(str(path), target)
            return
        folder, _, name = target.rpartition("/")
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
        try:
            self._files.put_file(str(path), temporary)
            self._files.mv(temporary, target)
        except BaseException:
            with contextlib.suppress(Exception):  # the error that counts is the one above
                self._files.rm_file(temporary)
            raise

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"
