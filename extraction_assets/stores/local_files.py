"""The files of a chunk store in a folder of this machine."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from extraction_assets.stores.chunk_record import Record, read_record
from extraction_assets.stores.remote_folder import RemoteFolder
from extraction_assets.stores.sealed import nobody_writing, set_aside, writing
from extraction_assets.stores.store_protocol import Answer, Beside


class LocalFiles:
    """See ``StoreFiles``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def place(self) -> str:
        return str(self.root)

    @property
    def disk(self) -> Path | None:
        return self.root

    def shown(self, sentence: str) -> str:
        return sentence

    @property
    def readers(self) -> int:
        return 4

    def address(self, path: Path) -> str:
        return str(path)

    def inside(self, folder: Path) -> list[Path]:
        return [folder / name for name in sorted(os.listdir(folder))] if folder.is_dir() else []

    def names(self, folder: Path) -> dict[str, bool]:
        try:
            with os.scandir(folder) as inside:
                return {one.name: _is_file(one) for one in inside}
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return {}

    def files_in(self, folder: Path) -> list[Path]:
        return [path for path in sorted(folder.rglob("*")) if path.is_file()]

    def is_file(self, path: Path) -> bool:
        return path.is_file()

    def is_folder(self, path: Path) -> bool:
        return path.is_dir()

    def exists(self, path: Path) -> bool:
        return os.path.lexists(path)

    def size(self, path: Path) -> int:
        """Links are not followed."""
        try:
            if _is_folder(path):
                return sum(self.size(inside) for inside in path.iterdir())
            return path.lstat().st_size
        except FileNotFoundError:
            return 0

    def length(self, path: Path) -> int:
        """0 also of a circle of links."""
        try:
            return path.stat().st_size
        except OSError:
            return 0

    def changed_at(self, path: Path) -> float:
        inside = self.inside(path) if _is_folder(path) else []
        return max(one.lstat().st_mtime for one in (path, *inside))

    def record(self, path: Path) -> Record:
        return read_record(path)

    @contextlib.contextmanager
    def reading(self, path: Path, beside: Beside | None = None) -> Iterator[Path]:
        yield path

    def several_passes(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def storing(self, path: Path) -> Iterator[Path]:
        yield path

    def read_folder(self, folder: Path, read: Callable[[], Answer]) -> Answer:
        return read()

    def store_folder(self, folder: Path, names: Iterable[str]) -> None:
        """They were flushed where they were written."""

    def drafts(self, folder: Path) -> Path:
        return folder

    def set_aside(self, path: Path) -> str | None:
        aside = set_aside(path)
        return None if aside is None else aside.name

    def remove(self, paths: Iterable[Path]) -> int:
        """A folder disappears under its name at once, so that no process finds half of it."""
        freed = 0
        for path in paths:
            freed += self.size(path)
            if _is_folder(path):
                doomed = path.with_name(f".{uuid.uuid4().hex}.damaged")
                os.replace(path, doomed)
                shutil.rmtree(doomed)
            else:
                path.unlink(missing_ok=True)
        return freed

    def remove_empty(self, folder: Path) -> None:
        for inside in self.inside(folder):
            if inside.is_dir():
                self.remove_empty(inside)
        if folder.is_dir() and not any(folder.iterdir()):
            with nobody_writing(folder) as free:
                if free:
                    folder.rmdir()

    def writing(self, folder: Path) -> AbstractContextManager[None]:
        return writing(folder)

    def nobody_writing(self, folder: Path) -> AbstractContextManager[bool]:
        return nobody_writing(folder)

    def uploads(self, folder: Path) -> dict[Path, Path]:
        return {}

    def remote(self, folder: Path) -> RemoteFolder | None:
        return None

    def close(self) -> None:
        """There are no copies."""


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Links are followed, and alone cost a look at the file."""
    try:
        return entry.is_file()
    except OSError:  # a circle of links
        return False


def _is_folder(path: Path) -> bool:
    """A link to a folder does not count: what it leads to is not the store's."""
    return path.is_dir() and not path.is_symlink()
