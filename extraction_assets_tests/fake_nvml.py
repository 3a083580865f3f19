"""A ``pynvml`` without a GPU: what the real one's functions return, for GPUs that a test makes up."""

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest


class FakeGpu(NamedTuple):
    uuid: str
    free_mib: int = 80_000
    busy: tuple[int | Exception, ...] = (0,)
    """What it answers when asked how busy it is, one after the other; the last one for ever."""


class FakeNvml(ModuleType):
    """Counts in ``opened`` how often it was initialized and not shut down."""

    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_UNKNOWN = 999

    class NVMLError(Exception):
        def __init__(self, value: int, text: str = "") -> None:
            super().__init__(text)
            self.value = value

    def __init__(self, gpus: list[FakeGpu], refuses: int | None = None, text: str = "") -> None:
        super().__init__("pynvml")
        self.opened = 0
        self._gpus, self._refuses, self._text = gpus, refuses, text
        self._answers = {gpu.uuid: self._busy(gpu) for gpu in gpus}

    @staticmethod
    def _busy(gpu: FakeGpu) -> Iterator[int | Exception]:
        yield from gpu.busy
        while True:
            yield gpu.busy[-1]

    def nvmlInit(self) -> None:
        if self._refuses is not None:
            raise self.NVMLError(self._refuses, self._text)
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "550.1"

    def nvmlDeviceGetCount(self) -> int:
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeGpu:
        for gpu in self._gpus:
            if uuid == f"GPU-{gpu.uuid}":
                return gpu
        raise self.NVMLError(6, "Not Found")

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return f"GPU-{gpu.uuid}"

    def nvmlDeviceGetName(self, _gpu: FakeGpu) -> str:
        return "NVIDIA Test 9000"

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> Any:
        return SimpleNamespace(total=81_920 * 2**20, free=gpu.free_mib * 2**20)

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> Any:
        answer = next(self._answers[gpu.uuid])
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(gpu=answer, memory=0)


def install(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> FakeNvml:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml
