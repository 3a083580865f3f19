"""The device that a run computes on, and how it uses it."""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import torch
from pydantic import Field

from extraction_assets.engine.chunk_pass.batching import (
    AdaptiveBatch,
    available_memory_gb,
    calculate_optimal_vectorization_batch,
)
from extraction_assets.host.locations import gpu_lease_folder
from extraction_assets.host.regular_files import IrregularFileError, open_regular
from extraction_assets.resources.checked_fields import NO_BOUND, Count, Device, Gigabytes, VectorizationBatchSize

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


def vectorized_by_default() -> bool:
    """``USE_VECTORIZED_EXTRACTION``: 1, true, yes, on (the default) or 0, false, no, off."""
    text = os.environ.get("USE_VECTORIZED_EXTRACTION", "").strip().lower()
    if text in ("", "1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"USE_VECTORIZED_EXTRACTION is {text!r}; use true or false")


_PRECISIONS = ("highest", "high", "medium")


def _read_now(field: str, value: Any) -> Any:
    """The value of an environment variable for a field whose type Dagster gives no ``EnvVar``; others as they are."""
    if not isinstance(value, dg.EnvVar) or field not in ("vectorized", "compile_model", "matmul_precision"):
        return value
    text = value.get_value()
    if text is None:
        raise ValueError(f"the environment variable {value.env_var_name} is not set, which gpu.{field} is from")
    allowed = _PRECISIONS if field == "matmul_precision" else ("true", "false", "1", "0", "yes", "no", "on", "off")
    if text.strip().lower() not in allowed:
        words = ", ".join(allowed)
        raise ValueError(f"gpu.{field} is {text!r}, from the environment variable {value.env_var_name}: use {words}")
    return text.strip().lower()


class GpuResource(dg.ConfigurableResource):
    """The GPU (or CPU) of a run, and which engine works on it. Missing and empty fields mean the defaults."""

    # Descriptions name the defaults: the backfill dialog shows fields and descriptions, but scaffolds nothing.

    device: Device = Field(
        default="auto",
        description="`auto` leases a free GPU of this host, waiting while all are busy, and is the CPU where there is "
        "none; or `cuda:1` (a certain GPU, without a lease), or `cpu`. Default: auto.",
    )
    batch_size: Count = Field(default=128, description="Samples of one forward pass of the model. Default: 128.")
    vectorization_batch_size: VectorizationBatchSize = Field(
        default="auto",
        description="Samples reduced at once: `auto` (from the memory that is free) or a positive whole number. "
        "Changes memory and speed, never a result. Default: auto.",
    )
    vectorized: bool = Field(
        default_factory=vectorized_by_default,
        description="Use the vectorized engine; false is the sequential legacy loop, far slower, with the same "
        "result. Default: the environment variable `USE_VECTORIZED_EXTRACTION`, else true.",
    )
    num_workers: Count = Field(default=8, description="Threads that tokenize the corpus. Default: 8.")
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        default="high",
        description="torch's float32 matmul precision while the SAE encodes (`high` is TF32 on a GPU). Default: high.",
    )
    compile_model: bool = Field(
        default=False,
        description="Compile the model's blocks by `torch.compile`: every run first waits 5 to 10 seconds for a faster "
        "forward pass, which pays in runs of many 100,000 samples; last bits may differ. Default: False.",
    )
    memory_budget_gb: Gigabytes = Field(
        default=NO_BOUND,  # a word, because the Launchpad scaffolds no field whose default is null
        validate_default=True,
        description="Upper bound in GiB on the device memory that `auto` plans with. Default: none, all that is free.",
    )

    def __init__(self, **fields: Any) -> None:
        # Dagster shows as a field's default what the constructor was given, and no default of a default_factory.
        given = {name: _read_now(name, value) for name, value in fields.items() if value is not None}
        super().__init__(**{"vectorized": vectorized_by_default(), **given})

    @contextlib.contextmanager
    def use_device(self, logger: logging.Logger) -> Iterator[torch.device]:
        """The device to compute on; a leased GPU is held until the block ends, or the process however it ends."""
        with choose_device(self.device, logger) as device:
            yield device

    def vectorization_batch(
        self, device: torch.device, latent_dim: int, seq_len: int, logger: logging.Logger
    ) -> AdaptiveBatch:
        """The batch to reduce at once, for SAEs of at most ``latent_dim`` features; ask once the model is loaded."""
        size = self.vectorization_batch_size
        if size == "auto":
            available = available_memory_gb(device, self.memory_budget_gb)
            size = calculate_optimal_vectorization_batch(available, latent_dim, seq_len)
        return AdaptiveBatch(size, logger)


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
