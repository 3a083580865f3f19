"""Progress of long work: a bar in a terminal, a log line every few seconds in a run of the UI; both say the same."""

import contextlib
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

PROGRESS_VARIABLE = "EXTRACTION_PROGRESS"
"""Environment variable: ``bar`` shows bars on standard error; otherwise progress is logged."""

RATE_SECONDS = 30.0
"""The rate is that of the last so many seconds of work, like tqdm's, so that a slower run shows it. The last rate shown
is that of all the work."""

_LOG_SECONDS = 5.0
_LEAST_BETWEEN = 0.1
"""Seconds between two points that the rate is taken from, so that they are few however often something is done."""

_shows_bars: ContextVar[bool] = ContextVar("_shows_bars", default=False)

Clock = Callable[[], float]
Show = Callable[["Progress", int], None]


class Progress:
    """Call it with the number of items done since the last call, and what else is to be shown.

    The clock of the rate and of the time left starts when it is made, or at ``begin``, and ``skip`` is not counted as
    work: neither loading a model nor existing results distort them.
    """

    def __init__(self, description: str, total: int, unit: str, show: Show, clock: Clock = time.monotonic) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done, self.note = 0, ""
        self._show, self._clock = show, clock
        self._worked = 0
        self._begun = False
        self._points = deque([(clock(), 0)])  # (time, items worked on until then)
        self._first = self._points[0]

    def begin(self) -> None:
        """The rate covers the work from here on; only the first call counts."""
        if not self._begun and not self._worked:
            self._first = (self._clock(), 0)
            self._points = deque([self._first])
        self._begun = True

    def __call__(self, count: int, note: str = "") -> None:
        self.done += count
        self._worked += count
        self.note = note
        self._add_point()
        self._show(self, count)

    def skip(self, count: int) -> None:
        """That many items exist already."""
        self.done += count
        self._show(self, count)

    def end(self) -> None:
        """Ends the work: the rate becomes that of all of it."""
        self._points = deque([self._first, (self._clock(), self._worked)])

    @property
    def rate(self) -> float | None:
        """Items a second; None before any was worked on."""
        (since, before), (now, worked) = self._points[0], self._points[-1]
        return (worked - before) / (now - since) if now > since and worked > before else None

    @property
    def seconds_left(self) -> float | None:
        """None while there is no rate."""
        return (self.total - self.done) / self.rate if self.rate else None

    @property
    def skipped(self) -> int:
        return self.done - self._worked

    def _add_point(self) -> None:
        points, point = self._points, (self._clock(), self._worked)
        if len(points) > 2 and point[0] - points[-2][0] < _LEAST_BETWEEN:
            points[-1] = point
        else:
            points.append(point)
        while len(points) > 2 and points[1][0] <= point[0] - RATE_SECONDS:
            points.popleft()  # one point of at least that age stays, however long a batch takes


@contextlib.contextmanager
def progress(
    description: str, total: int, unit: str, logger: logging.Logger, clock: Clock = time.monotonic
) -> Iterator[Progress]:
    """Shows the progress of the block; see ``Progress``."""
    if _shows_bars.get() or os.environ.get(PROGRESS_VARIABLE) == "bar":
        with _bar(description, total, unit) as bar:
            shown = bar.progress = Progress(description, total, unit, _update_bar(bar), clock)
            try:
                yield shown
            finally:
                shown.end()
    else:
        lines = _LogLines(logger, clock)
        shown = Progress(description, total, unit, lines.show, clock)
        yield shown
        shown.end()
        lines.show_end(shown)


@contextlib.contextmanager
def bars() -> Iterator[None]:
    """Progress of what is done in the block is shown as bars, whatever the environment says: for a notebook."""
    before = _shows_bars.set(True)
    try:
        yield
    finally:
        _shows_bars.reset(before)


def _bar(description: str, total: int, unit: str) -> Any:
    from tqdm import tqdm

    class Bar(tqdm):
        """tqdm with our rate, from which it computes the time left."""

        progress: Progress | None = None

        @property
        def format_dict(self) -> dict[str, Any]:
            known: dict[str, Any] = super().format_dict
            if self.progress is not None:
                known.update(rate=self.progress.rate, initial=self.progress.skipped)
            return known

    # With miniters left to tqdm, skipping existing results would make it wait for as many again.
    interval = 0.2 if sys.stderr.isatty() else _LOG_SECONDS
    return Bar(total=total, desc=description, unit=f" {unit}", mininterval=interval, miniters=1, file=sys.stderr)


def _update_bar(bar: Any) -> Show:
    def show(progress: Progress, count: int) -> None:
        if progress.note:
            bar.set_postfix_str(progress.note, refresh=False)
        bar.update(count)

    return show


class _LogLines:
    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger, self._clock, self._logged = logger, clock, clock()

    def show(self, progress: Progress, _count: int) -> None:
        now = self._clock()
        if now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        left = progress.seconds_left
        self._log(progress, "" if left is None else f"{_interval(left)} left", progress.note)

    def show_end(self, progress: Progress) -> None:
        self._log(progress, f"{progress.skipped} of them were there already" if progress.skipped else "")

    def _log(self, progress: Progress, *more: str) -> None:
        rate = "" if progress.rate is None else f"{progress.rate:.1f} {progress.unit}/s"
        what = f"{progress.description}: {progress.done} of {progress.total} {progress.unit}"
        self._logger.info("%s", ", ".join(part for part in (what, rate, *more) if part))


def _interval(seconds: float) -> str:
    from tqdm import tqdm

    return str(tqdm.format_interval(seconds))
