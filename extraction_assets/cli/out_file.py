"""The file that a command writes."""

from pathlib import Path
from typing import Any

import click


class OutFile(click.ParamType):
    """The full path of a file to write. Its folders need not exist: who writes it makes them."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        scheme, found, _ = str(value).partition("://")
        if found and scheme.isalnum():
            self.fail(f"{value} is a URL, but the file is written on this machine: give a path", param, ctx)
        try:
            path = Path(value).expanduser().absolute()
        except RuntimeError:  # ~nobody
            self.fail(f"{value} is in the home of a user who is not known: give another path", param, ctx)
        blocked = next((parent for parent in path.parents if parent.exists() and not parent.is_dir()), None)
        if blocked is not None:
            self.fail(f"{blocked} is a file, and nothing can be written below it: give another path", param, ctx)
        if path.is_dir():
            self.fail(f"{path} is a folder: give the path of a file", param, ctx)
        return path
