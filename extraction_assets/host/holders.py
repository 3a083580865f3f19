"""Files that say "a process is at work here": an empty file a holder, locked as long as its process lives.

The kernel frees the lock when the process ends, however it ends, and other containers of the host see it, as do other
hosts over NFS. The name says who holds it, so that a file costs no block of a full disk. On a file system without locks
(``flock``) a holder counts as alive while its process runs, and one of another place until its file is removed.
"""

import contextlib
import fcntl
import glob
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from extraction_assets.host.processes import ProcessPlace, here, is_running

_SEPARATOR = "@"


class Holder(NamedTuple):
    """A process that is marked as working."""

    what: str
    """What it works on, and what it does: ``demo@run``."""
    pid: int
    place: ProcessPlace
    path: Path

    def __str__(self) -> str:
        return f"process {self.pid} on {self.place.host}"


class Held(NamedTuple):
    """A holder's own file, open and locked."""

    path: Path
    handle: IO[str]

    def release(self) -> None:
        """Ends it before the process ends."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.handle.close()


def hold(folder: Path, what: str) -> Held:
    """Makes a holder's file and locks it until it is released or the process ends.

    ``what`` may hold letters, digits, ``_``, ``-``, ``.`` and ``@``. Raises OSError if no file can be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = here()
    host = re.sub(r"[^\w.-]", "_", place.host)
    parts = [what, host, str(os.getpid()), place.boot, place.namespace, place.machine, uuid.uuid4().hex[:8]]
    path = folder / _SEPARATOR.join(parts)
    unnamed = path.with_name(f".{path.name}")  # locked before anybody can see it unlocked
    handle = unnamed.open("w")
    try:
        with contextlib.suppress(OSError):  # no locks here: the name alone must suffice
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(unnamed, path)
    except BaseException:
        handle.close()
        unnamed.unlink(missing_ok=True)
        raise
    return Held(path, handle)


@contextlib.contextmanager
def holding(folder: Path, what: str) -> Iterator[None]:
    """Holds a file for as long as the block runs."""
    held = hold(folder, what)
    try:
        yield
    finally:
        held.release()


def living(folder: Path, begins: str) -> list[Holder]:
    """Holders whose ``what`` is or begins with ``begins`` and that live, this process's own left out. Files of the dead
    are removed."""
    found = []
    for path in sorted(folder.glob(f"{glob.escape(begins)}{_SEPARATOR}*")) if folder.is_dir() else ():
        holder = read(path)
        if holder is None or (holder.pid == os.getpid() and holder.place.is_here()):
            continue
        if is_alive(holder):
            found.append(holder)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    return found


def is_alive(holder: Holder) -> bool:
    """Whether a holder's process lives."""
    try:
        handle = _open(holder.path)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks on this file system
        return is_running(holder.pid) if holder.place.is_here() else not holder.place.is_gone()
    finally:
        os.close(handle)
    return False


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR)  # NFS locks exclusively only what may be written
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def read(path: Path) -> Holder | None:
    """The holder that a file's name says; None for any other name."""
    parts = path.name.rsplit(_SEPARATOR, 6)
    if len(parts) != 7 or not parts[2].isdigit():
        return None
    what, host, pid, boot, namespace, machine, _ = parts
    return Holder(what, int(pid), ProcessPlace(host, boot, namespace, machine), path)
