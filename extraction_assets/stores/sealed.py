"""Files that arrive whole and carry their own checksum.

A file is written under a name of its own, fsynced and renamed, so that a reader sees all of it or nothing. A text
field inside it (safetensors header, Parquet key-value metadata) holds the SHA-256 of the whole file, computed with
that field's digits as zeros; a cut or altered file is found on reading.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path
from typing import IO

from extraction_assets.host.regular_files import IrregularFileError, open_regular

_PREFIX = b"extraction-assets-sha256:"
_DIGITS = 64
PLACEHOLDER = (_PREFIX + b"0" * _DIGITS).decode()
"""To be written once in a file's metadata; ``write_sealed`` puts the checksum in its place."""

_LONGEST_REASON = 200
_SEAL = re.compile(re.escape(_PREFIX) + rb"[0-9a-f]{64}")
_SET_ASIDE = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.damaged")
_METADATA_BYTES = 1 << 20  # the field lies in the first or last MiB, where headers and footers are

_AT_ONCE = 64 << 20
"""Bytes written in one call."""

MAKE_AGAIN = "`run NAME --missing` computes its chunk again"
"""What to do about a damaged file of a chunk."""


class DamagedFileError(ValueError):
    """A stored file that is cut, altered or not what it claims to be; the message names it."""

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path
        """The file, where it is known."""


def damaged(path: Path, what: object, advice: str = MAKE_AGAIN, shown: str | None = None) -> DamagedFileError:
    """The error of a damaged file in one sentence: ``what`` is wrong, such as a library's error, and what to do.

    The file is ``shown`` as its path if nothing else is said.
    """
    lines = str(what).strip().splitlines() or [type(what).__name__]
    reason = lines[0] if len(lines[0]) <= _LONGEST_REASON else lines[0][: _LONGEST_REASON - 3] + "..."
    return DamagedFileError(f"{shown or path} is damaged: {reason.rstrip('.')}; {advice}", path)


def named(sentence: str, extraction: str) -> str:
    """A sentence with the name of its extraction in the command that it advises."""
    return sentence.replace("`run NAME ", f"`run {extraction} ")


def open_stored(path: Path, advice: str = MAKE_AGAIN) -> BufferedReader:
    """Opens a stored file. Raises FileNotFoundError if it does not exist, DamagedFileError if it is not a file."""
    try:
        return open_regular(path)
    except IrregularFileError as error:
        raise damaged(path, str(error).removeprefix(f"{path} "), advice) from error


def set_aside(path: Path) -> Path | None:
    """Renames a damaged file or folder to a temporary name, so that it counts as missing and can be recomputed.

    `clean` removes it once it is old; later runs find it by its name (``names_set_aside``). None if it was removed
    meanwhile.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.damaged")
    try:
        os.replace(path, aside)
    except FileNotFoundError:
        return None
    return aside


def names_set_aside(paths: Iterable[Path]) -> set[str]:
    """Names that those of the paths had that were set aside."""
    names = [_SET_ASIDE.fullmatch(path.name) for path in paths]
    return {match["name"] for match in names if match}


def write_sealed_bytes(path: Path, pieces: Sequence[memoryview]) -> str:
    """As ``write_sealed``, for a file that is consecutive ``pieces`` of memory, the place of the seal in the first.

    One thread writes them and flushes them to the disk while another computes the checksum. Neither holds Python's
    global lock for it, so that the thread that keeps a GPU busy is never held up by the size of a file.
    """
    at = _find_digits(pieces[0])
    if at is None:
        raise ValueError(f"{path} has no place for a checksum in its metadata")
    with durable_path(path) as temporary, ThreadPoolExecutor(1, thread_name_prefix="checksum") as other:
        checksum = other.submit(_checksum, pieces, at)
        with temporary.open("r+b", buffering=0) as file, naming(path):
            for piece in pieces:
                write_all(file, piece)
            os.fsync(file.fileno())
            os.pwrite(file.fileno(), checksum.result().encode(), at)
        return checksum.result()


def write_sealed(path: Path, write: Callable[[Path], object], before_rename: Callable[[], object] | None = None) -> str:
    """Write a file with ``write(temporary path)``, seal it, make it durable and rename it to ``path``, which waits for
    ``before_rename``.

    Returns the checksum. On an error, of ``before_rename`` too, nothing is left behind and an older file at ``path``
    stays.
    """
    with durable_path(path, before_rename) as temporary:
        write(temporary)
        return _seal(temporary)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Marks a folder as written to, so that its temporaries are left alone; any number of writers at once.

    A shared lock on the folder itself: the kernel frees it if the process dies, however it dies. Where the file system
    has no such locks nothing is marked, and only the age of a temporary protects it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def nobody_writing(folder: Path) -> Iterator[bool]:
    """Whether no process of this host writes to the folder; while the block runs, new writers wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except OSError:
            free = True  # no locks here: the caller decides by age
        yield free
    finally:
        os.close(handle)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other is in such a block of the folder, nor in one of ``writing``, in this process too; where the
    file system has no such locks, nobody waits."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def durable_path(path: Path, before_rename: Callable[[], object] | None = None) -> Iterator[Path]:
    """A temporary path beside ``path``; what is written there is fsynced and, after ``before_rename``, renamed to
    ``path`` at the end, as a file of that moment."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with writing(path.parent):
        try:
            temporary.touch(exist_ok=False)
            permissions = temporary.stat().st_mode  # of any new file of this user; safetensors gives its own fewer
            yield temporary
            temporary.chmod(permissions)
            sync(temporary)
            if before_rename is not None:
                before_rename()
                os.utime(temporary)  # newer than what it has waited for, whose age is compared with it
            if path.is_dir():  # a folder in the file's place
                set_aside(path)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def verify(path: Path, advice: str = MAKE_AGAIN) -> str:
    """The checksum of a sealed file; DamagedFileError, with ``advice``, where the file does not match it.

    FileNotFoundError if it does not exist. Reads the whole file once.
    """
    with open_stored(path, advice) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise damaged(path, "it is empty", advice)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return verify_bytes(data, path, advice)


def verify_bytes(data: bytes | mmap.mmap, path: Path, advice: str = MAKE_AGAIN) -> str:
    """``verify`` for the bytes of a whole file that have been read."""
    at = _find_digits(data)
    if at is None:
        raise damaged(path, "its checksum is missing, so it is cut short or altered", advice)
    stored = bytes(data[at : at + _DIGITS]).decode()
    if _checksum([data], at) != stored:
        raise damaged(path, "its bytes do not match its checksum", advice)
    return stored


def _seal(path: Path) -> str:
    """Puts the checksum of a file in its place. Reads the file through a mapping, but never flushes that:
    ``mmap.flush`` waits for the disk with Python's global lock held."""
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = _find_digits(data)
            if at is None:
                raise ValueError(f"{path} has no place for a checksum in its metadata")
            checksum = _checksum([data], at)
        os.pwrite(file.fileno(), checksum.encode(), at)
        return checksum


def write_all(file: IO[bytes], piece: memoryview) -> None:
    """Writes a piece of memory, in bytes; the kernel may take a part of it alone."""
    written = 0
    while written < len(piece):
        written += file.write(piece[written : written + _AT_ONCE])


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in an error of the disk that names none, such as a full one's."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _find_digits(data: bytes | mmap.mmap | memoryview) -> int | None:
    """Where the 64 digits stand."""
    size = len(data)
    for start, stop in ((0, _METADATA_BYTES), (max(0, size - _METADATA_BYTES), size)):
        found = _SEAL.search(data[start:stop])
        if found:
            return start + found.start() + len(_PREFIX)
    return None


def _checksum(pieces: Sequence[bytes | mmap.mmap | memoryview], digits_at: int) -> str:
    """SHA-256 of consecutive pieces, with zeros for the digits in the first."""
    digest = hashlib.sha256()
    for number, piece in enumerate(pieces):
        with memoryview(piece) as view:
            if number:
                digest.update(view)
                continue
            digest.update(view[:digits_at])
            digest.update(b"0" * _DIGITS)
            digest.update(view[digits_at + _DIGITS :])
    return digest.hexdigest()
