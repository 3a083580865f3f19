"""The device of a run: checked, chosen and, with ``auto`` on a GPU, leased until the run ends."""

import contextlib
import logging
from collections.abc import Iterator

import torch

from extraction_assets.host.compile_cache import keep_compiled_kernels
from extraction_assets.host.gpu_lease import DeviceError, lease, lease_if_free
from extraction_assets.host.ray_gpus import gpus_given_by_ray


def check_device(wanted: str) -> None:
    """Raises DeviceError if this host does not have the device that ``wanted`` names."""
    if wanted in ("auto", "cpu"):
        return
    count = torch.cuda.device_count()
    if (torch.device(wanted).index or 0) >= count:
        raise DeviceError(f"device {wanted!r} is configured, but torch sees {count} GPU(s); use 'auto' or 'cpu'")


@contextlib.contextmanager
def choose_device(wanted: str, logger: logging.Logger) -> Iterator[torch.device]:
    """The device for ``wanted``; with ``auto``, a GPU that no other run of this host holds, or one that Ray gave."""
    if wanted != "auto":
        yield _named_device(wanted)
        return
    uuids = _uuids()
    if not uuids:
        yield torch.device("cpu")
        return
    if gpus_given_by_ray():
        yield from _given_device(uuids, logger)
        return
    with lease(uuids, logger) as index:
        yield _current("cuda", index)


@contextlib.contextmanager
def choose_idle_device(wanted: str, logger: logging.Logger) -> Iterator[torch.device]:
    """As ``choose_device``, but with ``auto`` the CPU where other runs hold all GPUs: waits for none."""
    if wanted != "auto":
        yield _named_device(wanted)
        return
    uuids = _uuids()
    if uuids and gpus_given_by_ray():
        yield from _given_device(uuids, logger)
        return
    with lease_if_free(uuids, logger) as index:
        yield torch.device("cpu") if index is None else _current("cuda", index)


def _given_device(uuids: list[str], logger: logging.Logger) -> Iterator[torch.device]:
    """A GPU that Ray gave this run, whoever holds its lease: Ray may give shares of one to several runs.

    The lease is taken where it is free, so that runs that Ray knows nothing of leave the GPU alone.
    """
    logger.info("Ray gave this run CUDA_VISIBLE_DEVICES=%s: it waits for no lease", gpus_given_by_ray())
    with lease_if_free(uuids, logger) as index:
        yield _current("cuda", index or 0)


def _named_device(wanted: str) -> torch.device:
    check_device(wanted)
    device = torch.device(wanted)
    return _current("cuda", device.index or 0) if device.type == "cuda" else device


def _uuids() -> list[str]:
    """Of the GPUs of this host, by index."""
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def _current(kind: str, index: int) -> torch.device:
    """A GPU, to which kernels and events of this process go from now on, and which keeps what it compiles."""
    keep_compiled_kernels()
    device = torch.device(kind, index)
    torch.cuda.set_device(device)
    return device
