"""What an address asks for after its ``?``: read by name, checked, and refused in one sentence."""

import math
from collections.abc import Collection, Iterable
from typing import TypeVar

Choice = TypeVar("Choice", bound=str)

LONGEST = 2_000
"""Characters of one value: no search needs more, and an address of this length still fits every log."""


class BadRequestError(ValueError):
    """A request that cannot be answered as it stands; the message is one sentence that says why."""


class Parameters:
    """The parameters of an address. An empty one counts as left out, since a form sends its empty fields too.

    Each reader notes its name, so that ``refuse_unknown`` finds the parameters that a page does not have.
    """

    def __init__(self, given: Iterable[tuple[str, str]]) -> None:
        self.given = [(name, value) for name, value in given if value != ""]
        self._known: dict[str, None] = {}

    def texts(self, name: str, longest: int = LONGEST) -> list[str]:
        """Every value of a parameter that may be repeated, each of at most ``longest`` characters.

        Raises BadRequestError, as all readers do.
        """
        self._known[name] = None
        found = [value for key, value in self.given if key == name]
        for value in found:
            _refuse_no_text(name, value, longest)
        return found

    def text(self, name: str, longest: int = LONGEST) -> str | None:
        """The value of a parameter; None if it is left out."""
        found = self.texts(name, longest)
        if len(found) > 1:
            raise BadRequestError(f"the parameter {name!r} is given {len(found)} times: give it once")
        return found[0] if found else None

    def number(self, name: str) -> float | None:
        """A finite number."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise BadRequestError(f"{name}={text} is not a number")
        return value

    def integer(self, name: str, minimum: int = 0, maximum: int = 2**63 - 1) -> int | None:
        """A whole number from ``minimum`` to ``maximum``."""
        text = self.text(name)
        if text is None:
            return None
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and minimum <= int(text) <= maximum):
            upper = f" to {maximum}" if maximum < 2**63 - 1 else " on"
            raise BadRequestError(f"{name}={text} is not a whole number from {minimum}{upper}")
        return int(text)

    def choice(self, name: str, choices: Collection[Choice], default: Choice) -> Choice:
        """One of some words; ``default`` if it is left out."""
        text = self.text(name)
        if text is None:
            return default
        for choice in choices:
            if choice == text:
                return choice
        raise BadRequestError(f"{name}={text} is not one of {', '.join(filter(None, choices))}")

    def flag(self, name: str) -> bool:
        """``1`` or ``0``, which is the default."""
        return self.choice(name, ("0", "1"), "0") == "1"

    def refuse_unknown(self) -> None:
        """Raises BadRequestError if the address has a parameter that nothing has read: it may be misspelled."""
        for name, _ in self.given:
            if name not in self._known:
                known = f"this page has {', '.join(self._known)}" if self._known else "this page has none"
                raise BadRequestError(f"there is no parameter {name!r}: {known}")


def _refuse_no_text(name: str, value: str, longest: int) -> None:
    if len(value) > longest:
        raise BadRequestError(f"the parameter {name!r} has {len(value)} characters: at most {longest} are read")
    if "\0" in value or any("\ud800" <= ch <= "\udfff" for ch in value):
        raise BadRequestError(f"the parameter {name!r} holds a character that no text in the database holds")
