"""Free space on disks, and readable sizes."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def readable_size(size: float) -> str:
    """``12.3 MB``; units of 1000, as disks are sold and `df -H` counts."""
    amount, unit = float(size), 0
    while amount >= 1000 and unit < 4:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}" if unit else f"{int(size)} bytes"


def nearest(folder: Path) -> Path:
    """The folder itself or the nearest one above it that exists."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def free_bytes(folder: Path) -> int:
    """Free on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(nearest(folder)).free


FULL = 64 * 1024
"""Bytes: a disk with less free takes no new file of a database."""


def full_disk(path: Path) -> str:
    """``the disk of FOLDER is full (12 bytes free)``, for the folder of a file that could not be written; if it has
    room, that it cannot be written to."""
    folder = nearest(path if path.is_dir() else path.parent)
    free = free_bytes(folder)
    if is_read_only(folder):
        return f"the disk of {folder} is mounted read-only"
    if free < FULL:
        return f"the disk of {folder} is full ({readable_size(free)} free)"
    return f"nothing can be written in {folder} ({readable_size(free)} free): a quota or a limit"


def is_read_only(folder: Path) -> bool:
    """Whether the disk of a folder is mounted read-only."""
    return bool(os.statvfs(nearest(folder)).f_flag & os.ST_RDONLY)


def not_writable(file: Path) -> str | None:
    """Which of a file and its folder this user may not write to, on a disk that others can be written on; None if both
    can be. A file that ``chattr +i`` has locked cannot be written by anybody."""
    if is_read_only(file.parent):
        return None
    return next((f"{path} is not writable" for path in (file, file.parent) if not _may_write(path)), None)


def _may_write(path: Path) -> bool:
    return not path.exists() or os.access(path, os.W_OK)


def unwritable(folder: Path) -> str | None:
    """Why no file can be written to the disk of a folder, which need not exist yet; None if one can."""
    return full_disk(folder) if is_read_only(folder) or free_bytes(folder) < FULL else None


def ensure_temporary_folder() -> None:
    """Lets `tempfile` name a folder on a machine with full disks, /tmp included: some libraries need one when they are
    imported, and fail if no folder takes a file."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        memory = Path("/dev/shm")
        tempfile.tempdir = str(memory if memory.is_dir() and free_bytes(memory) > FULL else Path("/tmp"))


def says_no_room(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that nothing can be written to a disk."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _NO_ROOM:
            return True
        reason = getattr(seen, "orig", None) or seen  # SQLAlchemy keeps the driver's error there
        if str(getattr(reason, "sqlite_errorname", "")).startswith(SQLITE_CANNOT_WRITE):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


SQLITE_CANNOT_WRITE = ("SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN", "SQLITE_READONLY")
"""Names of SQLite's errors where it could not write what it needs beside a database, to open it or to change it."""
