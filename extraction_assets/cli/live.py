"""What ``browse --live NAME`` makes: the model and the SAEs of an extraction, for any text."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from extraction_assets.cli.terminal import echo

if TYPE_CHECKING:
    from extraction_assets.browser.live import LiveText


@contextlib.contextmanager
def live_text(module: str, name: str | None) -> "Iterator[LiveText | None]":
    """Extraction ``name`` of a module, to be loaded when the first text comes; None, and no torch, without a name.

    Raises ClickException for a name that is not declared.
    """
    if name is None:
        yield None
        return
    from extraction_assets.cli.workspace import open_workspace
    from extraction_assets.execution.live import LiveExtraction

    workspace = open_workspace(module, name)
    settings = workspace.find(name)
    echo(f"texts are tried with {name}: its model is loaded when the first one comes")
    with LiveExtraction(settings, workspace.store, workspace.gpu, logging.getLogger(__name__)) as live:
        yield live
