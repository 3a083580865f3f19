"""A chunk store at a URL, to read: its files are copied to this machine when they are asked for."""

import contextlib
import os
import shutil
import tempfile
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from extraction_assets.catalog import ChunkAsset
from extraction_assets.stores.chunk_names import ChunkFile, chunk_files
from extraction_assets.stores.chunk_store import ChunkStore, CurrentCorpus, read_pointer
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.sealed import DamagedFileError
from extraction_assets.stores.storage_urls import StorageUrl

_KEPT_BYTES = 16 << 30


class RemoteChunkStore(ChunkStore):
    """The store at a URL, which nothing is written to. ``root`` is scratch on this machine with the copies of files;
    they are verified there as files of a local store are.

    The chunk files that were read last stay until ``close``, up to ``kept_bytes``, and so does the corpus. Raises
    StorageError where the storage cannot be read.
    """

    def __init__(self, url: StorageUrl, kept_bytes: int = _KEPT_BYTES) -> None:
        self._folder, self._most = RemoteFolder(url), kept_bytes
        super().__init__(Path(tempfile.mkdtemp(prefix="extraction-assets-")))
        self._kept: OrderedDict[Path, int] = OrderedDict()
        self._remove = weakref.finalize(self, shutil.rmtree, self.root, ignore_errors=True)

    @property
    def place(self) -> str:
        return str(self._folder.url)

    def close(self) -> None:
        self._remove()

    def chunk_files(self, extraction: str, asset: ChunkAsset, sae: str | None = None) -> list[ChunkFile]:
        folder = self.asset_folder(extraction, asset, sae)
        return list(chunk_files(folder / name for name in sorted(self._names(folder))))

    def changed_at(self, path: Path) -> float:
        return self._folder.modified(self._name(path))

    @contextlib.contextmanager
    def reading(self, path: Path) -> Iterator[Path]:
        if path not in self._kept:
            self._fetch(path)
            self._kept[path] = path.stat().st_size
        self._kept.move_to_end(path)
        while len(self._kept) > 1 and sum(self._kept.values()) > self._most:
            self._kept.popitem(last=False)[0].unlink(missing_ok=True)  # what is mapped stays until it is let go of
        with self._naming_the_url():
            yield path

    def current_corpus(self, extraction: str) -> CurrentCorpus | None:
        pointer = self.pointer(extraction)
        content = self._folder.read(self._name(pointer))
        if content is None:
            self._names(pointer.parent)  # raises where the bucket itself is what is not there
            return None
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.write_bytes(content)
        with self._naming_the_url():
            folder = self.corpora / read_pointer(pointer).value["corpus"]
            for name in self._names(folder):
                if not (folder / name).exists():
                    self._fetch(folder / name)
            return super().current_corpus(extraction)

    def _names(self, folder: Path) -> list[str]:
        """Files that lie in a folder of the store; names that would lead out of it are none of its own."""
        return [name for name in self._folder.inside(self._name(folder)).sizes() if name and "/" not in name]

    def _fetch(self, path: Path) -> None:
        """Copies a file, which gets its name when it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            self._folder.fetch(self._name(path), temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    @contextlib.contextmanager
    def _naming_the_url(self) -> Iterator[None]:
        """What is damaged is the file of the store, not its copy."""
        try:
            yield
        except DamagedFileError as error:
            raise DamagedFileError(str(error).replace(str(self.root), self.place), error.path) from error
