"""The device of a run: checked, chosen and, where it is a GPU of its own, leased until the run ends."""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path

import torch

from extraction_assets.host.locations import gpu_lease_folder
from extraction_assets.host.regular_files import IrregularFileError, open_regular

_LEASE_POLL_SECONDS = 1.0


class DeviceError(ValueError):
    """A device that this host does not have."""


def check_device(wanted: str) -> None:
    """DeviceError where this host lacks the device that ``wanted`` names."""
    if wanted in ("auto", "cpu"):
        return
    count = torch.cuda.device_count()
    if (torch.device(wanted).index or 0) >= count:
        raise DeviceError(f"device {wanted!r} is configured, but torch sees {count} GPU(s); use 'auto' or 'cpu'")


@contextlib.contextmanager
def choose_device(wanted: str, logger: logging.Logger) -> Iterator[torch.device]:
    """The device for ``wanted``; with ``auto``, a GPU that no other run of this host holds."""
    if wanted != "auto":
        check_device(wanted)
        device = torch.device(wanted)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # kernels and events of this process go there
        yield device
        return
    count = torch.cuda.device_count()
    if count == 0:
        yield torch.device("cpu")
        return
    uuids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]
    with lease(uuids, logger) as index:
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        yield device


@contextlib.contextmanager
def lease(
    names: list[str],
    logger: logging.Logger,
    folder: Path | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Index of a name that nobody else on this host holds, waiting while all are held.

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


def _make_lease_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # every user of the host leases from the same files
    except (FileExistsError, NotADirectoryError) as error:
        raise DeviceError(f"{folder}, where GPUs are leased, is not a folder: remove it") from error


def _try_lock(path: Path) -> BufferedReader | None:
    """The locked file; None where somebody else has it. DeviceError where it cannot be a lock."""
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
