"""Numbers as pages show them."""

NOT_COMPUTED = "not computed"
"""What stands in the place of a number that no step has computed."""


def count(number: int | None) -> str:
    """``1,234``."""
    return NOT_COMPUTED if number is None else f"{number:,}"


def share(fraction: float | None) -> str:
    """``12.3 %``, with three digits from the first that is not 0."""
    return NOT_COMPUTED if fraction is None else f"{three_digits(100 * fraction)} %"


def value(number: float | None) -> str:
    """An activation, with three digits."""
    return NOT_COMPUTED if number is None else three_digits(number)


def three_digits(number: float) -> str:
    """``0.00123``, ``1.23``, ``123``, ``12,345``: without an exponent down to 0.0001."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    if number and abs(number) < 1e-4:
        return f"{number:.2e}"
    return f"{number:#.3g}".rstrip(".") if number else "0"
