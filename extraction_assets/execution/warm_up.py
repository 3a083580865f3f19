"""What a run's first batch would wait for, done in a thread while the run is being prepared."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch

from extraction_assets.engine.chunk_pass.rehearsal import prepare_device


class WarmUp:
    """Does work for a GPU in one thread, in order; nothing on a CPU. A context manager, which ends with the thread.

    What fails here is left to the run itself, which meets it again where it can be told apart from other errors.
    """

    def __init__(self, device: torch.device, logger: logging.Logger) -> None:
        self._device, self._logger = device, logger
        self._pending: list[Future[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="warm-up")

    def __enter__(self) -> Self:
        self.begin("preparing the device", lambda: prepare_device(self._device))
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def begin(self, what: str, work: Callable[[], object], *, awaited: bool = True) -> None:
        """Queues ``work``; ``what`` names it in the log, and ``awaited`` says whether ``wait`` waits for it."""
        if self._device.type != "cuda":
            return
        future = self._thread.submit(self._do, what, work)
        if awaited:
            self._pending.append(future)

    def wait(self) -> None:
        """Until everything that was begun has ended: to be called before the precision of products is set, which is the
        whole process's."""
        while self._pending:
            self._pending.pop().result()

    def _do(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # of whatever kind
            self._logger.debug("%s ahead of the first batch failed: %s", what, error)
