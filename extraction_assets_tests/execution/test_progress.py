"""Rate and time left, by a clock of the test's own; bar and log say the same."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.execution import progress as progress_module
from extraction_assets.execution.progress import PROGRESS_VARIABLE, Progress, progress


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def _progress(clock: FakeClock, total: int = 100) -> Progress:
    return Progress("chunks", total, "samples", lambda _progress, _count: None, clock)


def _work(update: Progress, clock: FakeClock, *batches: tuple[float, int]) -> None:
    for seconds, count in batches:
        clock.now += seconds
        update(count)


def test_rate_and_time_left_of_even_work(clock: FakeClock) -> None:
    update = _progress(clock)
    _work(update, clock, (2, 10), (2, 10))
    assert (update.done, update.rate, update.seconds_left) == (20, 5.0, 16.0)


def test_before_any_work_nothing_is_known(clock: FakeClock) -> None:
    update = _progress(clock)
    clock.now += 3
    assert (update.rate, update.seconds_left) == (None, None)


def test_loading_a_model_is_no_work(clock: FakeClock) -> None:
    update = _progress(clock)
    clock.now += 60
    update.begin()
    _work(update, clock, (2, 10))
    assert (update.rate, update.seconds_left) == (5.0, 18.0)


def test_only_the_first_begin_counts(clock: FakeClock) -> None:
    """What lies between two chunks, such as waiting for the disk, is part of how long they take."""
    update = _progress(clock)
    update.begin()
    _work(update, clock, (2, 10))
    clock.now += 2
    update.begin()
    _work(update, clock, (1, 10))
    assert update.rate == 4.0


def test_what_is_there_already_is_done_but_no_work(clock: FakeClock) -> None:
    update = _progress(clock)
    update.skip(60)
    assert (update.done, update.rate, update.seconds_left) == (60, None, None)
    clock.now += 5
    update.begin()
    _work(update, clock, (2, 10))
    assert (update.done, update.skipped, update.rate, update.seconds_left) == (70, 60, 5.0, 6.0)


def test_the_rate_follows_a_run_that_becomes_slower(clock: FakeClock) -> None:
    update = _progress(clock, total=10_000)
    _work(update, clock, *[(1, 100)] * 60)
    _work(update, clock, *[(1, 10)] * 30)
    assert update.rate == 10.0
    update.end()
    assert update.rate == 6300 / 90


def test_a_batch_longer_than_the_window_has_a_rate(clock: FakeClock) -> None:
    update = _progress(clock)
    _work(update, clock, (100, 10), (200, 10))
    assert update.rate == 10 / 200


def test_many_small_steps_keep_few_points(clock: FakeClock) -> None:
    update = _progress(clock, total=100_000)
    _work(update, clock, *[(0.001, 1)] * 50_000)
    assert update.rate == pytest.approx(1000)
    assert len(update._points) <= progress_module.RATE_SECONDS / 0.1 + 3


@given(st.lists(st.tuples(st.floats(0.01, 50), st.integers(0, 100), st.booleans()), max_size=50))
def test_the_time_left_ends_at_zero_and_is_never_negative(steps: list[tuple[float, int, bool]]) -> None:
    clock = FakeClock()
    update = _progress(clock, total=sum(count for _, count, _ in steps))
    for seconds, count, there in steps:
        clock.now += seconds
        update.skip(count) if there else update(count)
        assert update.seconds_left is None or update.seconds_left >= 0
    assert update.done == update.total
    assert update.seconds_left in (None, 0)


def test_a_log_line_every_five_seconds_says_it_all(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with progress("chunks", 1000, "samples", logging.getLogger("test"), clock) as update:
        update.skip(500)
        clock.now += 60
        update.begin()
        for _ in range(6):
            clock.now += 2
            update(20, "chunk 000000000500, batch 64, GPU 97%")
    more = "chunk 000000000500, batch 64, GPU 97%"
    assert [record.getMessage() for record in caplog.records] == [
        f"chunks: 520 of 1000 samples, 10.0 samples/s, 00:48 left, {more}",
        f"chunks: 580 of 1000 samples, 10.0 samples/s, 00:42 left, {more}",
        "chunks: 620 of 1000 samples, 10.0 samples/s, 500 of them were there already",
    ]


def test_work_that_fails_does_not_say_that_it_ended(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(RuntimeError), progress("chunks", 10, "samples", logging.getLogger("test"), clock) as update:
        update(5)
        raise RuntimeError
    assert not caplog.records


def test_the_bar_shows_the_same(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(PROGRESS_VARIABLE, "bar")
    monkeypatch.setattr(progress_module, "_LOG_SECONDS", 0.0)  # a bar that is no terminal's is drawn that often
    with progress("chunks", 1000, "samples", logging.getLogger("test"), clock) as update:
        update.skip(500)
        clock.now += 60
        update.begin()
        clock.now += 2
        update(20, "chunk 000000000500, batch 64")
    lines = capsys.readouterr().err.replace("\n", "\r").split("\r")
    assert any(" 500/1000 [00:00<?, ? samples/s]" in line for line in lines)
    assert any(" 520/1000 [00:00<00:48, 10.00 samples/s, chunk 000000000500, batch 64]" in line for line in lines)
