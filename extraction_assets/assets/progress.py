"""Progress of long work: a bar in a terminal, a log line every few seconds in a run of the UI."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator

PROGRESS_VARIABLE = "EXTRACTION_PROGRESS"
"""Environment variable: ``bar`` shows bars on standard error; otherwise progress is logged."""

_LOG_SECONDS = 5.0


@contextlib.contextmanager
def progress(description: str, total: int, unit: str, logger: logging.Logger) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of new items."""
    if os.environ.get(PROGRESS_VARIABLE) == "bar":
        from tqdm import tqdm

        interval = 0.2 if sys.stderr.isatty() else 5.0
        with tqdm(total=total, desc=description, unit=f" {unit}", mininterval=interval, file=sys.stderr) as bar:
            yield lambda count: bar.update(count) and None
    else:
        yield _LoggedProgress(description, total, unit, logger).update


class _LoggedProgress:
    def __init__(self, description: str, total: int, unit: str, logger: logging.Logger) -> None:
        self._description, self._total, self._unit, self._logger = description, total, unit, logger
        self._done, self._started = 0, time.monotonic()
        self._logged = self._started

    def update(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            rate = self._done / (now - self._started)
            left = (self._total - self._done) / rate if rate else float("inf")
            self._logger.info(
                "%s: %d of %d %s, %.1f a second, %.0f s left",
                *(self._description, self._done, self._total, self._unit, rate, left),
            )
