"""Reading a SQLite database where nothing can be written: on a full or read-only disk.

A database in WAL mode does not open there, not even with ``mode=ro``: SQLite must make or enlarge the file ``-shm``.
``immutable=1`` needs no file, but sees neither the WAL nor what a writer does meanwhile; where there is one of them, a
copy on another disk is read.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from extraction_assets.database.errors import DatabaseError
from extraction_assets.host.disk import free_bytes, full_disk, readable_size

_OPEN_BYTE = 128  # of ``-shm``: every connection holds a lock on it (SQLite's UNIX_SHM_DMS)
_COPIES = 3
_MARGIN = 1 << 20  # of a copy's disk: its own -shm, and what is written beside it


class _State(NamedTuple):
    """What shows that a file was not written to."""

    size: int
    modified: int


@contextlib.contextmanager
def readable_path(file: Path) -> Iterator[str]:
    """A ``file:`` URI, without options of its own, that opens a SQLite file where its disk takes no new byte.

    Raises DatabaseError if that needs a copy and no other disk has room for it, or if another program goes on
    writing while it is copied.
    """
    if not _may_change(file):
        yield f"file:{quote(str(file))}?mode=ro&immutable=1"
        return
    with _copied(file) as copy:
        yield f"file:{quote(str(copy))}?mode=rw"


def _may_change(file: Path) -> bool:
    """Whether there is a WAL or a journal that belongs to the content, or a connection that may write one."""
    beside = [file.with_name(file.name + suffix) for suffix in ("-wal", "-journal")]
    if any(_state(path).size > 0 for path in beside):
        return True
    try:
        handle = os.open(file.with_name(f"{file.name}-shm"), os.O_RDWR)
    except OSError:
        return False  # no connection in WAL mode; one in another mode has a journal while it writes
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _OPEN_BYTE)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def _copied(file: Path) -> Iterator[Path]:
    size = sum(_state(part).size for part in _parts(file))
    with tempfile.TemporaryDirectory(dir=_roomy_folder(file, size), prefix="extraction-assets-") as folder:
        for _ in range(_COPIES):
            before = [_state(part) for part in _parts(file)]
            for part in _parts(file):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(part, Path(folder) / part.name)
            if [_state(part) for part in _parts(file)] == before:
                yield Path(folder) / file.name
                return
            for left in Path(folder).iterdir():
                left.unlink()
    raise DatabaseError(f"{file} cannot be read: {full_disk(file)}, and another program is writing to it")


def _parts(file: Path) -> list[Path]:
    """A database and what belongs to its content; ``-shm`` is made again from the WAL."""
    return [file, *(file.with_name(file.name + suffix) for suffix in ("-wal", "-journal"))]


def _state(path: Path) -> _State:
    try:
        found = path.stat()
    except OSError:
        return _State(0, 0)
    return _State(found.st_size, found.st_mtime_ns)


def _roomy_folder(file: Path, size: int) -> Path:
    """A folder of temporary files on a disk that has room for a copy."""
    folders = [Path(tempfile.gettempdir()), Path("/dev/shm"), Path("/var/tmp"), Path.home()]
    for folder in folders:
        if os.access(folder, os.W_OK) and free_bytes(folder) >= size + _MARGIN:
            return folder
    raise DatabaseError(
        f"{file} cannot be read: {full_disk(file)}, and no other disk has {readable_size(size + _MARGIN)} for a copy: "
        "make room, or set TMPDIR to a folder on a disk that has"
    )
