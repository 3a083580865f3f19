"""NVIDIA's driver, asked through its library NVML: the GPUs of this host, and how busy one of them is.

GPUs are identified by UUID: ``CUDA_VISIBLE_DEVICES`` renumbers them for torch, but not for the driver.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

MIB = 2**20


class DriverError(RuntimeError):
    """NVML cannot answer; the message says why."""


class NoDriver(DriverError):
    """This host has no NVIDIA driver."""


class Gpu(NamedTuple):
    """A GPU as the driver describes it; CUDA_VISIBLE_DEVICES does not hide it."""

    number: int
    uuid: str
    """As torch says it, without NVML's ``GPU-``."""
    name: str
    total_mib: float
    free_mib: float
    driver: str


def list_gpus() -> list[Gpu]:
    """All GPUs of this host. Raises NoDriver if there is no driver, DriverError if it fails."""
    with _library() as nvml:
        driver = nvml.nvmlSystemGetDriverVersion()
        return [_described(nvml, number, driver) for number in range(nvml.nvmlDeviceGetCount())]


@contextlib.contextmanager
def gpu_meter(uuid: str) -> Iterator[Callable[[], float]]:
    """A function that gives the percentage of time for which a kernel, of any process, was running on a GPU.

    The driver takes it over its last sample period (1/6 s to 1 s). ``uuid`` is torch's, without ``GPU-``.
    Raises DriverError if the GPU does not report it, as a MIG slice does not; so does the function.
    """
    with _library() as nvml:
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")

        def percent() -> float:
            with _errors(nvml):
                return float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)

        percent()
        yield percent


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    """The module ``pynvml``, initialized until the block ends; its errors become DriverError."""
    try:
        import pynvml
    except ImportError as error:
        raise DriverError(f"the package nvidia-ml-py is not installed ({error})") from error
    with _errors(pynvml):
        pynvml.nvmlInit()
    try:
        with _errors(pynvml):
            yield pynvml
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


@contextlib.contextmanager
def _errors(nvml: Any) -> Iterator[None]:
    try:
        yield
    except nvml.NVMLError as error:
        kind = NoDriver if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND else DriverError
        raise kind(f"NVML fails: {error}") from error


def _described(nvml: Any, number: int, driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(number)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    uuid, name = nvml.nvmlDeviceGetUUID(handle).removeprefix("GPU-"), nvml.nvmlDeviceGetName(handle)
    return Gpu(number, uuid, name, memory.total / MIB, memory.free / MIB, driver)
