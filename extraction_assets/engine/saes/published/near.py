"""Which names of the registry a mistyped one may mean."""

import difflib
import re
from collections.abc import Iterable

_MOST = 5


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """At most five of ``known``, best first: those that ``name`` begins, or else those that look like it."""
    by_lower = {one.lower(): one for one in known}
    lower = name.lower()
    begun = sorted((one for one in by_lower if one.startswith(lower)), key=natural)
    found = begun or difflib.get_close_matches(lower, list(by_lower), n=_MOST, cutoff=0.5)
    return [by_lower[one] for one in found[:_MOST]]


def resembles(name: str, known: Iterable[str]) -> bool:
    """Whether ``name`` is one of ``known`` but for a few letters."""
    return bool(difflib.get_close_matches(name.lower(), [one.lower() for one in known], n=1, cutoff=0.8))


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts ``layer_9`` before ``layer_10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
