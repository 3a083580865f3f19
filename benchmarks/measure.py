"""Clocks and meters: how long something takes, and what it uses of the machine meanwhile."""

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psutil
import torch

GB = 1e9
_PERIOD_SECONDS = 0.05
_MOST_REPEATS = 10


@dataclass
class Usage:
    """A stage's use of the machine; None if it was not measured."""

    seconds: float = 0.0
    peak_vram_gb: float | None = None
    """Peak memory of torch's tensors."""
    peak_reserved_gb: float | None = None
    """Peak device memory that torch reserved."""
    peak_ram_gb: float = 0.0
    """Peak resident memory of this process, mapped files included."""
    cpu_cores: float = 0.0
    """Cores busy for this process, on average."""
    gpu_percent: float | None = None
    """Share of the time in which a kernel ran, on average, by NVML."""
    gpu_percent_max: float | None = None


class Timing(NamedTuple):
    """Repeated measurements of the same work."""

    samples: int
    seconds: list[float]

    @property
    def rate(self) -> float:
        """Samples a second, by the median."""
        return self.samples / statistics.median(self.seconds)


def synchronise(device: torch.device) -> None:
    """Wait for everything that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds of one call, from an idle device to an idle device."""
    synchronise(device)
    started = time.perf_counter()
    result = work()
    synchronise(device)
    del result
    return time.perf_counter() - started


def repeated(device: torch.device, work: Callable[[], Any], limit: float) -> list[float]:
    """Seconds of each of up to ten calls after a warm-up; no further call once ``limit`` seconds are over."""
    timed(device, work)
    seconds = [timed(device, work)]
    while len(seconds) < _MOST_REPEATS and sum(seconds) < limit:
        seconds.append(timed(device, work))
    return seconds


def measure_rate(device: torch.device, work: Callable[[int], Any], *, least: int, most: int, limit: float) -> Timing:
    """How fast ``work(n)`` does n samples.

    A warm-up on ``least`` samples, once more to learn the rate, then passes over as many samples (a multiple of
    ``least``, at most ``most``) as let three of them fit the ``limit`` in seconds.
    """
    least = min(least, most)
    work(least)
    rate = least / timed(device, lambda: work(least))
    samples = max(least, min(most, int(rate * limit / 3) // least * least))
    seconds = [timed(device, lambda: work(samples))]
    while len(seconds) < _MOST_REPEATS and sum(seconds) + seconds[-1] < limit:
        seconds.append(timed(device, lambda: work(samples)))
    return Timing(samples, seconds)


@contextlib.contextmanager
def metered(device: torch.device) -> Iterator[Usage]:
    """Fills a ``Usage`` with what the block used."""
    usage, process = Usage(), psutil.Process()
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before, started = process.cpu_times(), time.perf_counter()
    sampler = _Sampler(process, device)
    sampler.start()
    try:
        yield usage
    finally:
        sampler.stop()
        usage.seconds = time.perf_counter() - started
        after = process.cpu_times()
        usage.cpu_cores = (after.user + after.system - before.user - before.system) / usage.seconds
        usage.peak_ram_gb = sampler.peak_bytes / GB
        if on_gpu:
            usage.peak_vram_gb = torch.cuda.max_memory_allocated(device) / GB
            usage.peak_reserved_gb = torch.cuda.max_memory_reserved(device) / GB
        if sampler.gpu_percent:
            usage.gpu_percent = statistics.fmean(sampler.gpu_percent)
            usage.gpu_percent_max = max(sampler.gpu_percent)


@dataclass
class _Sampler:
    """Samples memory and GPU twenty times a second, in its own thread."""

    process: psutil.Process
    device: torch.device
    peak_bytes: int = 0
    gpu_percent: list[float] = field(default_factory=list)

    def start(self) -> None:
        self._utilisation = gpu_utilisation(self.device)
        self._look()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="meter", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(_PERIOD_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self.process.memory_info().rss)
        percent = self._utilisation() if self._utilisation else None
        if percent is not None:
            self.gpu_percent.append(percent)


def gpu_utilisation(device: torch.device) -> Callable[[], float | None] | None:
    """A function that reads the device's utilisation in percent from NVML; None if NVML is not available."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetUtilizationRates(handle)
    except Exception:  # not installed, no driver, or a part of a GPU, for which NVML reports none
        return None

    def ask() -> float | None:
        try:
            return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except pynvml.NVMLError:
            return None

    return ask
