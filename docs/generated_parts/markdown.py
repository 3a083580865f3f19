"""Markdown that the parts are made of."""


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; line breaks and vertical bars inside a cell are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
