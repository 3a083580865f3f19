"""Opens files that others may have replaced: refuses anything but a regular file, and never waits."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_NO_FILE = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR)
"""A circle of links, a path through a file, a socket, a folder."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""Kinds of paths that are not regular files, by the type in their mode."""


class IrregularFileError(ValueError):
    """A folder, a named pipe, a device or a circle of links where a file was expected; the message names it."""


def open_regular(path: Path, flags: int = os.O_RDONLY) -> BufferedReader:
    """Opens a file for reading bytes; ``flags`` are those of ``os.open``.

    Raises IrregularFileError for anything else, without waiting for the writer of a pipe; FileNotFoundError,
    PermissionError and other faults of the disk as they are.
    """
    try:
        handle = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in _NO_FILE:
            reason = "symbolic links in a circle" if error.errno == errno.ELOOP else str(error.strerror).lower()
            raise IrregularFileError(f"{path} is not a regular file ({reason})") from error
        raise
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind != stat.S_IFREG:
        os.close(handle)
        raise IrregularFileError(f"{path} is not a regular file but {KINDS.get(kind, 'something else')}")
    return os.fdopen(handle, "rb")


def read_text(path: Path, largest: int = 16 << 20) -> str:
    """The text of a small UTF-8 file of at most ``largest`` bytes.

    Raises IrregularFileError also where it is larger or not UTF-8.
    """
    with open_regular(path) as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise IrregularFileError(f"{path} is larger than the {largest} bytes that such a file can have")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IrregularFileError(f"{path} is not UTF-8 text ({error})") from error
