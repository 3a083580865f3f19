"""Leases of GPUs: one locked file a GPU, which every user of this host tries before a run computes on it."""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

from extraction_assets.host.locations import gpu_lease_folder
from extraction_assets.host.regular_files import IrregularFileError, open_regular

_LEASE_POLL_SECONDS = 1.0


class DeviceError(ValueError):
    """A device that this host does not have, or cannot lease."""


@contextlib.contextmanager
def lease(
    names: list[str],
    logger: logging.Logger,
    folder: Path | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Index of a name that no other process on this host holds; waits while all are held.

    One locked file a name: the kernel frees the lock if the process dies, however it dies.
    """
    folder = folder or gpu_lease_folder()
    _make_lease_folder(folder)
    waited = False
    while True:
        for index, name in enumerate(names):
            held = _try_lock(folder / f"{name}.lock")
            if held is not None:
                with held:
                    logger.info("using GPU %d (%s)", index, name)
                    yield index
                return
        if not waited:
            logger.info("all %d GPUs of this host are in use: waiting for one", len(names))
            waited = True
        sleep(_LEASE_POLL_SECONDS)


@contextlib.contextmanager
def lease_if_free(names: list[str], logger: logging.Logger, folder: Path | None = None) -> Iterator[int | None]:
    """As ``lease``, but None at once where other processes hold all of them."""
    folder = folder or gpu_lease_folder()
    _make_lease_folder(folder)
    for index, name in enumerate(names):
        held = _try_lock(folder / f"{name}.lock")
        if held is not None:
            with held:
                logger.info("using GPU %d (%s)", index, name)
                yield index
            return
    yield None


def _make_lease_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # every user of the host leases from the same files
    except (FileExistsError, NotADirectoryError) as error:
        raise DeviceError(f"{folder}, where GPUs are leased, is not a folder: remove it") from error


def _try_lock(path: Path) -> BufferedReader | None:
    """The locked file; None if another process holds it. Raises DeviceError if it cannot be locked."""
    try:
        # Read-only is enough to lock, and works on a file that another user made. Anybody may write to the folder, so
        # no link of somebody else's is followed.
        handle = open_regular(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            handle.close()
            raise
        return handle
    except BlockingIOError:
        return None
    except (IrregularFileError, OSError) as error:
        reason = str(error).removeprefix(f"{path} ") if isinstance(error, IrregularFileError) else error.strerror
        raise DeviceError(
            f"{path}, by which GPUs are leased, cannot be locked: {reason}; remove it, or name a device (cuda:0)"
        ) from error
