"""What downloads of one command or one step of a run share: commits, and how progress is shown."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

Arrived = Callable[[int], object]
"""Called with the number of bytes that have arrived since the last call; negative where they are fetched again."""
Show = Callable[[str, int], AbstractContextManager[Arrived]]
"""Shows the progress of a block that downloads so many bytes of what is named."""


@dataclass(frozen=True)
class Session:
    """See ``hub_session``."""

    commits: dict[tuple[str, str], str]
    """The commit of each (repository, revision) that was asked for."""
    listings: dict[tuple[str, str], Any]
    """What the hub said of the files of each (repository, commit) that was listed."""
    show: Show
    logger: logging.Logger
    unanswered: dict[str, Exception] = field(default_factory=dict)
    """Repository -> why the hub does not answer for it; it is not asked again."""
    said: set[str] = field(default_factory=set)
    """Warnings that were logged."""

    def warn(self, message: str) -> None:
        """Logs a warning, once."""
        if message not in self.said:
            self.said.add(message)
            self.logger.warning(message)


@contextlib.contextmanager
def hub_session(show: Show, logger: logging.Logger) -> Iterator[None]:
    """In the block a branch or tag means one commit, even if it moves meanwhile, and downloads are shown by ``show``.

    A hub that does not answer is not asked again. A session inside another one has its commits; outside of all sessions
    every call asks what a branch means now.
    """
    outer = _session.get()
    known = ({}, {}) if outer is None else (outer.commits, outer.listings)
    _session.set(Session(*known, show, logger))
    try:
        yield
    finally:
        _session.set(outer)  # and no token: a step is a generator, which may be closed in another context


def current_session() -> Session:
    """The session of this thread; outside of all, a new one that shows the bar of huggingface_hub."""
    return _session.get() or Session({}, {}, _library_bar, logging.getLogger(__name__))


_session: ContextVar[Session | None] = ContextVar("hub_session", default=None)


@contextlib.contextmanager
def _library_bar(what: str, size: int) -> Iterator[Arrived]:
    """The bar of huggingface_hub, which HF_HUB_DISABLE_PROGRESS_BARS and a standard error that is no terminal hide."""
    from huggingface_hub.utils import tqdm

    with tqdm(desc=what, total=size, unit="B", unit_scale=True, disable=None) as bar:
        yield bar.update
