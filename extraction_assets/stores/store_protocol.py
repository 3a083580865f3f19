"""What a chunk store asks of the place where its files lie: a folder of this machine, or a URL of object storage.

Files are named by paths under ``root``. A file is whole or absent, and named after what it holds, so that it is
replaced by an equal one only. ``local_files`` and ``remote_files`` are the two places.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from extraction_assets.stores.chunk_record import Record
from extraction_assets.stores.remote_folder import RemoteFolder

Answer = TypeVar("Answer")
Beside = Callable[[Path], Iterable[Path]]
"""Which files beside a file are read with it, from a file that can be opened."""


class StoreFiles(Protocol):
    """The files of a store."""

    @property
    def root(self) -> Path:
        """The paths of all files begin with it. A folder of this machine, where commands mark what they work on; at a
        URL the files themselves are not in it."""

    @property
    def place(self) -> str:
        """Where the files are, for messages."""

    @property
    def disk(self) -> Path | None:
        """The folder on whose disk everything that is stored has to fit; None for object storage, which grows."""

    def shown(self, sentence: str) -> str:
        """A sentence that names files by their paths, with their addresses."""

    @property
    def readers(self) -> int:
        """Threads that read headers and footers at once."""

    def address(self, path: Path) -> str:
        """Where a file is, for people: its path or its URL, without credentials."""

    def inside(self, folder: Path) -> list[Path]:
        """Files and folders in a folder, sorted; none where it does not exist."""

    def names(self, folder: Path) -> Mapping[str, bool]:
        """What lies in a folder, by name, and whether it is a file; nothing where there is no such folder."""

    def files_in(self, folder: Path) -> list[Path]:
        """All files in a folder and in those inside it, sorted."""

    def is_file(self, path: Path) -> bool:
        """Whether a file is there."""

    def is_folder(self, path: Path) -> bool:
        """Whether a folder is there."""

    def exists(self, path: Path) -> bool:
        """Whether anything is there under a name, a link to nothing too."""

    def size(self, path: Path) -> int:
        """Bytes of a file, or of all files in a folder; 0 if it was removed meanwhile."""

    def length(self, path: Path) -> int:
        """Bytes of a file, a link followed; 0 where it has gone meanwhile."""

    def changed_at(self, path: Path) -> float:
        """When a file was written, or the newest one of a folder, in seconds; FileNotFoundError if it is gone."""

    def record(self, path: Path) -> Record:
        """``read_record`` of a chunk file, without reading the rest of it."""

    def reading(self, path: Path, beside: Beside | None = None) -> AbstractContextManager[Path]:
        """The path of a file on this machine, to open it in the block; beside it the files that ``beside`` names.

        What is mapped into memory stays valid after the block. Raises FileNotFoundError if the file is not there.
        """

    def several_passes(self) -> AbstractContextManager[None]:
        """In the block the same files are read several times in the same order; copies that there are of them stay, as
        far as the disk allows."""

    def storing(self, path: Path) -> AbstractContextManager[Path]:
        """A path to write a file to, and those beside it that belong to it. They are durable when the block has ended;
        the file comes last. Nothing is stored if the block fails."""

    def read_folder(self, folder: Path, read: Callable[[], Answer]) -> Answer:
        """What ``read`` finds in the files of a folder, which lie there under their own paths, now and later.

        Raises FileNotFoundError if there is no such folder.
        """

    def store_folder(self, folder: Path, names: Iterable[str]) -> None:
        """Makes files durable that were written into a folder under their own paths, in this order."""

    def drafts(self, folder: Path) -> Path:
        """Where a folder is written that gets its name in ``folder`` once it is whole, on the same disk. What a killed
        process leaves there is found as a temporary of ``folder``, or goes with the scratch of that process."""

    def set_aside(self, path: Path) -> str | None:
        """Gives a damaged file or folder a temporary name, which is returned; None if it was removed meanwhile."""

    def remove(self, paths: Iterable[Path]) -> int:
        """Removes files and folders; returns their bytes."""

    def remove_empty(self, folder: Path) -> None:
        """Removes empty folders in ``folder`` and then itself, if nothing is in them."""

    def writing(self, folder: Path) -> AbstractContextManager[None]:
        """Marks a folder as written to by this host, see ``sealed.writing``."""

    def nobody_writing(self, folder: Path) -> AbstractContextManager[bool]:
        """Whether no process of this host writes to a folder, see ``sealed.nobody_writing``."""

    def uploads(self, folder: Path) -> dict[Path, Path]:
        """Uploads into a folder and those inside it that were begun and not completed, {name to remove it by: file}."""

    def remote(self, folder: Path) -> RemoteFolder | None:
        """A folder as one of object storage; None if it is one of this machine."""

    def close(self) -> None:
        """Removes the copies of files."""
