"""Which chunks a run makes: all of its partitions, or what several runs that share the chunks leave to it."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Protocol

from extraction_assets.execution.progress import Progress, progress


class Assignment(Protocol):
    """What a run asks before and after each chunk, and where its progress is shown.

    Dagster shows a chunk under the run that makes it, whichever run had planned it.
    """

    def begin(self, keys: Sequence[str]) -> None:
        """The run's step begins, or begins again after a failure, with the chunks that Dagster has planned for it."""

    def take(self, key: str) -> bool:
        """Whether this run makes a chunk of its plan; False if another run has it."""

    def take_another(self) -> str | None:
        """A further chunk, once the run has nothing left of its plan; None if no chunk is left for it."""

    def durable(self, key: str) -> None:
        """The files of a chunk are durable, its checks passed and its events recorded."""

    def progress(self, total: int, logger: logging.Logger) -> AbstractContextManager[Progress]:
        """Shows the progress of the block; ``total`` are the samples that are planned for the run."""


class Alone:
    """A run that makes the chunks of its plan, all of them and no others."""

    def begin(self, keys: Sequence[str]) -> None:
        """Nobody else has to know."""

    def take(self, key: str) -> bool:
        return True

    def take_another(self) -> str | None:
        return None

    def durable(self, key: str) -> None:
        """Nobody else has to know."""

    def progress(self, total: int, logger: logging.Logger) -> AbstractContextManager[Progress]:
        return progress("chunks", total, "samples", logger)


_current: ContextVar[Assignment | None] = ContextVar("assignment", default=None)


def current_assignment() -> Assignment:
    """That of the runs which this process makes now."""
    return _current.get() or Alone()


@contextlib.contextmanager
def assigned(assignment: Assignment) -> Iterator[None]:
    """Runs of chunks that the block makes share their chunks with others."""
    token = _current.set(assignment)
    try:
        yield
    finally:
        _current.reset(token)
