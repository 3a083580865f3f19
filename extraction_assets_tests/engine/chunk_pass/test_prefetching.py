"""Forward passes queued ahead, as on a GPU; test_cuda_seams has a real one."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from extraction_assets.engine.chunk_pass.forward import QueuedForward, prefetch_hooks
from extraction_assets.engine.chunk_pass.stage_clock import StageClock

CPU = torch.device("cpu")
GROUPS = [(0, 4), (4, 8), (8, 10)]


class Log:
    """What was queued and given, in order."""

    def __init__(self, *, fails_at: int = -1) -> None:
        self.lines: list[str] = []
        self._fails_at = fails_at

    def read(self, start: int, stop: int) -> Mapping[str, Tensor]:
        if start == self._fails_at:
            raise MemoryError("too large")
        self.lines.append(f"queued {start}")
        return {"h": torch.arange(start, stop)}

    def queue_next(self) -> None:
        self.lines.append("next chunk")

    def groups(self, queued: QueuedForward | None = None) -> Iterator[None]:
        shared: Any = SimpleNamespace(
            device=torch.device("cuda"), clock=StageClock(CPU), reduce_after=lambda hooks: None
        )
        for (start, stop), hooks in prefetch_hooks(self.read, GROUPS, shared, queued, self.queue_next):
            assert hooks["h"].tolist() == list(range(start, stop))
            self.lines.append(f"given {start}")
            yield


def _queued(start: int, stop: int) -> QueuedForward:
    return QueuedForward((start, stop), {"h": torch.arange(start, stop)}, StageClock(CPU))


def test_each_pass_is_queued_before_the_one_before_it_is_given_and_the_next_chunk_last() -> None:
    log = Log()
    list(log.groups())
    assert log.lines == [
        *("queued 0", "queued 4", "given 0", "queued 8", "given 4"),
        *("next chunk", "given 8"),
    ]


def test_a_first_pass_that_is_queued_already_is_not_run_again() -> None:
    log = Log()
    list(log.groups(_queued(0, 4)))
    assert log.lines[:2] == ["queued 4", "given 0"]


def test_a_queued_pass_over_another_group_is_not_used() -> None:
    """The batch has been halved since."""
    log = Log()
    list(log.groups(_queued(0, 8)))
    assert log.lines[:2] == ["queued 0", "queued 4"]


def test_where_memory_ran_out_the_next_chunk_is_not_queued() -> None:
    log = Log(fails_at=4)
    groups = log.groups()
    next(groups)
    log._fails_at = -1
    list(groups)
    assert log.lines == ["queued 0", "given 0", "queued 4", "given 4", "queued 8", "given 8"]
