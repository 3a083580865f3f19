"""The files of a chunk store at a URL. What is written is written to scratch on this machine, sealed as in a local
store, and uploaded; what is read is copied to scratch, and verified there."""

import contextlib
import hashlib
import os
import shutil
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

from extraction_assets.stores.chunk_record import Record, record_in_parts
from extraction_assets.stores.local_copies import LocalCopies, WantedFile
from extraction_assets.stores.remote_folder import Entry, RemoteFolder, Upload
from extraction_assets.stores.remote_listing import RemoteListing
from extraction_assets.stores.scratch import Scratch
from extraction_assets.stores.sealed import DamagedFileError, durable_path, nobody_writing, writing
from extraction_assets.stores.store_protocol import Answer, Beside

KEPT_BYTES = 2 << 30
_COPIES = "copies"
_MOST_RECORDS = 20_000
"""Of some KB each: those of all tables of an SAE of 10,000 chunks."""


class RemoteFiles:
    """See ``StoreFiles``. ``root`` is a folder of this machine; every path under it stands for a file at the URL.

    In it are scratch, what commands hold and lock, and the corpora that were read, which all processes share. The chunk
    files that were read last stay in scratch, up to ``kept_bytes``. A ``temporary`` root goes on ``close``. Every call
    may raise StorageError.
    """

    def __init__(
        self, folder: RemoteFolder, root: Path, kept_bytes: int = KEPT_BYTES, *, temporary: bool = False
    ) -> None:
        self.root, self._folder = root, folder
        self._remove_root = weakref.finalize(self, shutil.rmtree, root, ignore_errors=True) if temporary else None
        self._listing, self._copies = RemoteListing(folder), LocalCopies(kept_bytes)
        self._uploads: dict[Path, Upload] = {}
        self._records: dict[str, tuple[Entry, Record]] = {}

    @property
    def place(self) -> str:
        return str(self._folder.url)

    @property
    def disk(self) -> Path | None:
        return None

    def shown(self, sentence: str) -> str:
        return sentence.replace(str(self.root), self.place)

    @property
    def readers(self) -> int:
        return 16

    def address(self, path: Path) -> str:
        return f"{self.place}/{self._name(path)}"

    def inside(self, folder: Path) -> list[Path]:
        name = "" if folder == self.root else self._name(folder)
        return sorted(folder / one for one in self._listing.inside(name))

    def names(self, folder: Path) -> dict[str, bool]:
        inside = self._listing.inside(self._name(folder))
        return {name: entry is not None for name, entry in inside.items()}

    def files_in(self, folder: Path) -> list[Path]:
        return sorted(self.root / name for name in self._listing.files(self._name(folder)))

    def is_file(self, path: Path) -> bool:
        return self._listing.find(self._name(path)) is not None

    def is_folder(self, path: Path) -> bool:
        return self._listing.is_folder(self._name(path))

    def exists(self, path: Path) -> bool:
        return self.is_file(path) or self.is_folder(path)

    def size(self, path: Path) -> int:
        return sum(entry.size for entry in self._entries(path).values())

    def length(self, path: Path) -> int:
        entry = self._listing.find(self._name(path))
        return 0 if entry is None else entry.size

    def changed_at(self, path: Path) -> float:
        if path in self._uploads:
            return self._uploads[path].begun_at
        found = self._entries(path)
        if not found:
            raise FileNotFoundError(f"{self.address(path)} is not there")
        return max(entry.changed_at for entry in found.values())

    def record(self, path: Path) -> Record:
        name = self._name(path)
        entry = self._listing.find(name)
        if entry is None:
            raise FileNotFoundError(f"{self.address(path)} is not there")

        def part(start: int, stop: int) -> bytes:
            found = self._folder.read(name, start, stop)
            if found is None:
                self._listing.discard(name)
                raise FileNotFoundError(f"{self.address(path)} is not there")
            return found

        if len(self._records) > _MOST_RECORDS:
            self._records.clear()
        known = self._records.get(name)
        if known is None or known[0] != entry:
            with self._naming_the_url(path):
                known = self._records[name] = entry, record_in_parts(path, entry.size, part)
        return known[1]

    @contextlib.contextmanager
    def reading(self, path: Path, beside: Beside | None = None) -> Iterator[Path]:
        with self._naming_the_url(path), contextlib.ExitStack() as stack:
            copy = stack.enter_context(self._copies.reading(self._wanted(path)))
            for other in beside(copy) if beside else ():
                with contextlib.suppress(FileNotFoundError):  # the reader names the file that lacks it
                    stack.enter_context(self._copies.reading(self._wanted(path.with_name(other.name))))
            yield copy

    @contextlib.contextmanager
    def several_passes(self) -> Iterator[None]:
        """Half of what is free on the disk of scratch stays free, whoever fills it meanwhile: other merges too."""

        def free() -> int:
            return shutil.disk_usage(self._scratch).free

        half = free() // 2
        with self._copies.several_passes(lambda: free() - half):
            yield

    @contextlib.contextmanager
    def storing(self, path: Path) -> Iterator[Path]:
        """The files that the block has written beside the file, and the file, are uploaded and then removed here."""
        draft = self._scratch / uuid.uuid4().hex / path.name
        draft.parent.mkdir()
        try:
            with writing(path.parent):
                yield draft
                others = [one for one in sorted(draft.parent.iterdir()) if one != draft]
                for one in [*others, draft]:
                    self._put(one, path.with_name(one.name))
        finally:
            shutil.rmtree(draft.parent, ignore_errors=True)

    def read_folder(self, folder: Path, read: Callable[[], Answer]) -> Answer:
        """Copies that are damaged are made again once: it may be the copy that has changed, and not the file."""
        if not self.is_folder(folder):
            raise FileNotFoundError(f"{self.address(folder)} is not there")
        with self._naming_the_url(folder):
            copied = self._fetch_folder(folder)
            try:
                return read()
            except (DamagedFileError, FileNotFoundError):
                if copied:
                    raise
                self._drop_folder(folder)
                self._fetch_folder(folder)
                return read()

    def store_folder(self, folder: Path, names: Iterable[str]) -> None:
        with writing(folder.parent):
            for name in names:
                self._put(folder / name, folder / name)

    def drafts(self, folder: Path) -> Path:
        return self._scratch

    def set_aside(self, path: Path) -> str | None:
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.damaged")
        moved = False
        for name in self._entries(path):
            new = self._name(aside) + name[len(self._name(path)) :]
            moved = self._folder.rename(name, new) or moved
        self._copies.drop(self._copy_of(path))
        self._listing.forget()
        return aside.name if moved else None

    def remove(self, paths: Iterable[Path]) -> int:
        freed = 0
        for path in paths:
            if (upload := self._uploads.pop(path, None)) is not None:
                self._folder.abort(upload)
                continue
            for name, entry in self._entries(path).items():
                self._folder.remove(name)
                self._listing.discard(name)
                freed += entry.size
            self._copies.drop(self._copy_of(path))
            self._drop_folder(path)
        return freed

    def remove_empty(self, folder: Path) -> None:
        """Folders in object storage end with their last file; what is left here are folders that were locked."""
        for inside, _, _ in os.walk(folder, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(inside)

    def writing(self, folder: Path) -> AbstractContextManager[None]:
        return writing(folder)

    def nobody_writing(self, folder: Path) -> AbstractContextManager[bool]:
        folder.mkdir(parents=True, exist_ok=True)
        return nobody_writing(folder)

    def uploads(self, folder: Path) -> dict[Path, Path]:
        found = {}
        for upload in self._folder.uploads(self._name(folder)):
            file = self.root / upload.name
            name = file.with_name(f".{file.name}.{hashlib.sha256(upload.number.encode()).hexdigest()[:32]}.tmp")
            self._uploads[name], found[name] = upload, file
        return found

    def remote(self, folder: Path) -> RemoteFolder | None:
        self._listing.forget()  # the caller may change what is there
        return self._folder.inside(self._name(folder))

    def close(self) -> None:
        if "_process_scratch" in self.__dict__:
            self._process_scratch.close()
        if self._remove_root is not None:
            self._remove_root()

    @cached_property
    def _process_scratch(self) -> Scratch:
        return Scratch(self.root)

    @property
    def _scratch(self) -> Path:
        return self._process_scratch.path

    def _entries(self, path: Path) -> dict[str, Entry]:
        """A file by its name at the URL, or all files of a folder."""
        name = self._name(path)
        entry = self._listing.find(name)
        return self._listing.files(name) if entry is None else {name: entry}

    def _wanted(self, path: Path) -> WantedFile:
        entry = self._listing.find(self._name(path))
        if entry is None:
            raise FileNotFoundError(f"{self.address(path)} is not there")
        return WantedFile(self._copy_of(path), entry, lambda copy: self._fetch(path, copy))

    def _fetch(self, path: Path, to: Path) -> None:
        part = to.with_name(f".{to.name}.part")
        try:
            if not self._folder.fetch(self._name(path), part):
                self._listing.discard(self._name(path))
                raise FileNotFoundError(f"{self.address(path)} is not there")
            os.replace(part, to)
        finally:
            part.unlink(missing_ok=True)

    def _fetch_folder(self, folder: Path) -> bool:
        """Copies the files that are not here yet; whether that is all of them. They are of all processes, so each gets
        its name when it is whole."""
        here, names = folder.is_dir(), self._listing.inside(self._name(folder))
        for path in (folder / name for name in names):
            if not path.exists():
                with durable_path(path) as temporary:
                    self._fetch(path, temporary)
        return not here

    def _drop_folder(self, folder: Path) -> None:
        if folder.is_dir() and folder != self.root:
            doomed = folder.with_name(f".{uuid.uuid4().hex}.damaged")
            os.replace(folder, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _put(self, file: Path, path: Path) -> None:
        self._folder.put(file, self._name(path))
        self._listing.add(self._name(path), file.stat().st_size)

    def _copy_of(self, path: Path) -> Path:
        return self._scratch / _COPIES / self._name(path)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    @contextlib.contextmanager
    def _naming_the_url(self, path: Path) -> Iterator[None]:
        """What is damaged is the file of the store, not its copy."""
        try:
            yield
        except DamagedFileError as error:
            said = self.shown(str(error).replace(str(self._scratch / _COPIES), self.place))
            raise DamagedFileError(said, path if error.path is None else path.with_name(error.path.name)) from error
