"""The device of a run: checked, chosen and, with ``auto`` on a GPU, leased until the run ends."""

import contextlib
import logging
from collections.abc import Iterator

import torch

from extraction_assets.host.gpu_lease import DeviceError, lease


def check_device(wanted: str) -> None:
    """Raises DeviceError if this host does not have the device that ``wanted`` names."""
    if wanted in ("auto", "cpu"):
        return
    count = torch.cuda.device_count()
    if (torch.device(wanted).index or 0) >= count:
        raise DeviceError(f"device {wanted!r} is configured, but torch sees {count} GPU(s); use 'auto' or 'cpu'")


@contextlib.contextmanager
def choose_device(wanted: str, logger: logging.Logger, *, wait: bool = True) -> Iterator[torch.device]:
    """The device for ``wanted``; with ``auto``, a GPU that no other run of this host holds.

    Where all are in use, waits for one, or without ``wait`` raises DeviceError.
    """
    if wanted != "auto":
        check_device(wanted)
        device = torch.device(wanted)
        if device.type == "cuda":
            device = torch.device("cuda", device.index or 0)
            torch.cuda.set_device(device)  # kernels and events of this process go there
        yield device
        return
    count = torch.cuda.device_count()
    if count == 0:
        yield torch.device("cpu")
        return
    uuids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]
    with lease(uuids, logger, wait=wait) as index:
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        yield device
