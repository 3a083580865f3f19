"""Numbers of features, samples and chunks, as programs give them."""

import operator
from typing import Any


def whole_number(given: Any, name: str) -> int:
    """A whole number of Python, NumPy or torch. Raises TypeError for anything else, a text or a truth value too."""
    if not isinstance(given, bool):
        try:
            return operator.index(given)
        except TypeError:
            pass
    raise TypeError(f"{name} is {given!r}, a {type(given).__name__}: give a whole number")
