"""Frames of pandas that a notebook shows as the browser shows them."""

from collections.abc import Callable
from typing import Any

import pandas as pd


class ShownFrame(pd.DataFrame):
    """A frame with a page of its own for notebooks; what is derived from it is a plain frame."""

    _metadata = ["_html"]  # noqa: RUF012 (so pandas has it); an attribute, and no column

    def __init__(self, *arguments: Any, html: Callable[[], str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._html = html

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def __reduce__(self) -> "tuple[Any, ...] | str":
        """Stored, or given to another process, it is a plain frame."""
        return _as_it_is, (pd.DataFrame(self),)

    def _repr_html_(self) -> str:
        """What a notebook shows: texts in context, by the templates of ``browse``."""
        return self._html()


def _as_it_is(frame: pd.DataFrame) -> pd.DataFrame:
    return frame
