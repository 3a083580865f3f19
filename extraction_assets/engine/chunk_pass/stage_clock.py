"""How long the stages of a pass take, on a GPU without waiting for it."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import torch


class StageClock:
    """Adds up the seconds of named stages: a GPU's own time between two events of its stream, else wall-clock time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts the block for a stage. No synchronisation."""
        if self._device.type != "cuda":
            started = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - started
            return
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        yield
        last.record()
        self._events.append((name, first, last))

    def seconds(self) -> dict[str, float]:
        """Seconds by stage; waits for the GPU to be done with them."""
        for name, first, last in self._events:
            last.synchronize()
            self._seconds[name] += first.elapsed_time(last) / 1000
        self._events.clear()
        return dict(self._seconds)
