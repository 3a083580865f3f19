"""A folder of one process for files on their way to a URL and from there; others remove it once the process is dead."""

import contextlib
import fcntl
import os
import shutil
import time
import uuid
import weakref
from pathlib import Path

_FOLDER = ".scratch"
_NEW_SECONDS = 3600.0


class Scratch:
    """``<root>/.scratch/<name of its own>``, locked as long as the process lives and ``close`` was not called."""

    def __init__(self, root: Path) -> None:
        folder = root / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        _remove_dead(folder)
        name = uuid.uuid4().hex
        new, self.path = folder / f".{name}", folder / name
        new.mkdir()
        handle = os.open(new, os.O_RDONLY)
        with contextlib.suppress(OSError):  # no locks here: what is dead is not known, and stays
            fcntl.flock(handle, fcntl.LOCK_EX)
        new.rename(self.path)  # locked before anybody can see it unlocked
        self.close = weakref.finalize(self, _remove, self.path, handle)


def _remove(path: Path, handle: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(handle)


def _remove_dead(folder: Path) -> None:
    for path in folder.iterdir():
        if not path.name.startswith(".") or _is_old(path):
            with contextlib.suppress(OSError):
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)


def _is_old(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _NEW_SECONDS
    return False
