"""Where a command writes: a file or a folder of this machine."""

from pathlib import Path
from typing import Any

import click


class OutPath(click.ParamType):
    """The full path of a file or folder to write. Its folders need not exist: who writes it makes them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        """``file`` or ``folder``."""
        self.name = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        scheme, found, _ = str(value).partition("://")
        if found and scheme.isalnum():
            self.fail(f"{value} is a URL, but the {self.kind} is written on this machine: give a path", param, ctx)
        try:
            path = Path(value).expanduser().absolute()
        except RuntimeError:  # ~nobody
            self.fail(f"{value} is in the home of a user who is not known: give another path", param, ctx)
        blocked = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
        if blocked is not None:
            self.fail(f"{blocked} is a file, and nothing can be written below it: give another path", param, ctx)
        if path.exists() and path.is_dir() != (self.kind == "folder"):
            there = "folder" if path.is_dir() else "file"
            self.fail(f"{path} is a {there}: give the path of a {self.kind}", param, ctx)
        return path
