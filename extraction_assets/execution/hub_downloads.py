"""Downloads from the hub in a command or a step of a run: their progress, and one commit of each branch."""

import contextlib
import logging
from collections.abc import Iterator

from extraction_assets.engine.hub.session import Arrived, hub_session
from extraction_assets.execution.progress import progress

_MEGABYTE = 1_000_000


@contextlib.contextmanager
def hub_downloads(logger: logging.Logger) -> Iterator[None]:
    """In the block a branch of a hub repository means one commit (``hub_session``), and downloads show their progress
    as other long work does: a bar in a terminal, else lines of ``logger``."""

    @contextlib.contextmanager
    def show(what: str, size: int) -> Iterator[Arrived]:
        total, arrived = -(-size // _MEGABYTE), 0
        with progress(f"download of {what}", total, "MB", logger) as update:

            def count(more: int) -> None:
                nonlocal arrived
                before, arrived = arrived, arrived + more
                update(-(-arrived // _MEGABYTE) + before // -_MEGABYTE)

            yield count

    with hub_session(show, logger):
        yield
