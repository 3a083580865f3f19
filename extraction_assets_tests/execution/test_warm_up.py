"""What is done for a GPU before a run's first batch."""

import logging
import threading
import time

import pytest
import torch

from extraction_assets.execution import warm_up
from extraction_assets.execution.warm_up import WarmUp

LOGGER = logging.getLogger("warm-up")
GPU = torch.device("cuda", 0)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    found = list[torch.device]()
    monkeypatch.setattr(warm_up, "prepare_device", found.append)
    return found


def test_on_a_cpu_nothing_is_done_ahead(prepared: list[torch.device]) -> None:
    done = list[str]()
    with WarmUp(torch.device("cpu"), LOGGER) as warming:
        warming.begin("work", lambda: done.append("work"))
        warming.wait()
    assert (prepared, done) == ([], [])


def test_work_is_done_in_order_once_the_wait_is_over(prepared: list[torch.device]) -> None:
    done = list[int]()
    with WarmUp(GPU, LOGGER) as warming:
        for number in range(3):
            warming.begin("work", lambda number=number: (time.sleep(0.02), done.append(number)))
        warming.wait()
        assert (prepared, done) == ([GPU], [0, 1, 2])


def test_what_fails_is_left_to_the_run(prepared: list[torch.device], caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise ValueError("no such kernel")

    with caplog.at_level(logging.DEBUG), WarmUp(GPU, LOGGER) as warming:
        warming.begin("a rehearsal", broken)
        warming.wait()
    assert "a rehearsal ahead of the first batch failed: no such kernel" in caplog.text


def test_the_thread_ends_with_the_run(prepared: list[torch.device]) -> None:
    done = list[str]()
    with WarmUp(GPU, LOGGER) as warming:
        warming.begin("slow", lambda: (time.sleep(0.1), done.append("slow")))
        time.sleep(0.02)
    assert done == ["slow"]


def test_work_that_nobody_needs_at_once_is_not_waited_for(prepared: list[torch.device]) -> None:
    ended = threading.Event()
    with WarmUp(GPU, LOGGER) as warming:
        warming.begin("pinning", lambda: ended.wait(10), awaited=False)
        warming.wait()
        assert not ended.is_set()
        ended.set()
