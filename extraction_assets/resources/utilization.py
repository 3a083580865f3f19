"""How much of the machine a chunk uses: memory of host and device, processor, GPU."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

import psutil
import torch

from extraction_assets.host.nvml import DriverError, gpu_meter

GIB = 2**30
SECONDS_BETWEEN_SAMPLES = 0.1


class Utilization(NamedTuple):
    """What was used between ``restart`` and ``read``."""

    cpu_utilization_mean: float
    """Percent of one core, of this process: 200 is two cores busy all the time. Exact, not sampled."""
    peak_ram_gb: float
    """GiB; the most resident memory of this process in any sample, so a peak of less than 0.1 s may be missed."""
    peak_vram_gb: float | None = None
    """Peak GiB that torch had allocated; exact. None on a CPU."""
    peak_vram_reserved_gb: float | None = None
    """Peak GiB that torch had reserved from the driver, which other programs on the GPU cannot use."""
    gpu_utilization_mean: float | None = None
    """Percent of the time for which a kernel of any process was running on the GPU; None where NVML does not say it."""
    gpu_utilization_max: float | None = None

    def metadata(self) -> dict[str, float]:
        """What is known, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class UtilizationSampler:
    """Samples in a thread of its own, 10 times a second; a context manager, which ends the thread.

    Where NVML is missing or fails, GPU utilisation stays unknown and the log says why, at debug level.
    """

    def __init__(self, device: torch.device, logger: logging.Logger) -> None:
        self._device, self._logger = device, logger
        self._process = psutil.Process()
        self._gpu: Callable[[], float] | None = None
        self._closing = contextlib.ExitStack()
        self._failure = ""
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="utilization", daemon=True)

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            try:
                uuid = str(torch.cuda.get_device_properties(self._device).uuid)
                self._gpu = self._closing.enter_context(gpu_meter(uuid))
            except DriverError as error:
                self._failure = str(error)
        self.restart()
        self._thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._closing.close()

    @property
    def gpu_percent(self) -> float | None:
        """The last sample of how busy the GPU is, if it is known."""
        with self._lock:
            return self._busy[-1] if self._busy else None

    def restart(self) -> None:
        """Forgets what was used until now."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        with self._lock:
            self._busy: list[float] = []
            self._peak_ram = 0
            self._started = time.perf_counter(), time.process_time()

    def read(self) -> Utilization:
        """What was used since ``restart``; takes one sample itself, so that the shortest chunk has one."""
        self._sample()
        with self._lock:
            wall, cpu = self._started
            elapsed = max(time.perf_counter() - wall, 1e-9)
            used = Utilization(100 * (time.process_time() - cpu) / elapsed, self._peak_ram / GIB)
            busy, failure, self._failure = list(self._busy), self._failure, ""
        if failure:
            self._logger.debug("GPU utilisation is not known: %s", failure)
        if busy:
            used = used._replace(gpu_utilization_mean=sum(busy) / len(busy), gpu_utilization_max=max(busy))
        if self._device.type == "cuda":
            used = used._replace(
                peak_vram_gb=torch.cuda.max_memory_allocated(self._device) / GIB,
                peak_vram_reserved_gb=torch.cuda.max_memory_reserved(self._device) / GIB,
            )
        return used

    def _run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SAMPLES):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            self._peak_ram = max(self._peak_ram, self._process.memory_info().rss)
            if self._gpu is None:
                return
            try:
                self._busy.append(self._gpu())
            except DriverError as error:  # logged by `read`, in the run's own thread
                self._gpu, self._failure = None, str(error)
                self._busy.clear()
