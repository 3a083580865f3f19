"""Numbers of features on a command line."""

from typing import Any

import click


class FeatureNumbers(click.ParamType):
    """``1,2,#3``: numbers of features, each once."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        words = [word.strip().removeprefix("#") for word in str(value).split(",")]
        if not all(word.isascii() and word.isdigit() and len(word) < 20 for word in words):
            self.fail(f"{value!r} is not a list of features such as 12,3445", param, ctx)
        return list(dict.fromkeys(map(int, words)))
