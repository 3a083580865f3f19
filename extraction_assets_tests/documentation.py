"""README.md, docs/ and benchmarks/ as the tests of the documentation read them: blocks, inline code, links, anchors."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Found(NamedTuple):
    """Something that a page says."""

    page: Path
    text: str

    @property
    def name(self) -> str:
        """For the id of a test: the page, and the first line."""
        return f"{self.page.name}: {self.text.strip().splitlines()[0][:40]}"


def blocks(language: str) -> list[Found]:
    """The fenced blocks of a language."""
    texts = ((page, page.read_text("utf-8")) for page in PAGES)
    return [Found(page, body) for page, text in texts for kind, body in _FENCE.findall(text) if kind == language]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def inline_code() -> list[Found]:
    """Everything between single backquotes."""
    return [Found(page, text) for page in PAGES for text in re.findall(r"`([^`\n]+)`", prose(page))]


def typed_lines() -> list[Found]:
    """Lines that people type into a terminal: those of indented blocks, and inline code."""
    lines = [
        Found(page, line.strip().removeprefix("$ ").partition(" #")[0].rstrip())
        for page in PAGES
        for line in re.findall(r"^    (.+)$", prose(page), re.MULTILINE)
    ]
    return [*lines, *inline_code()]


def links() -> list[Found]:
    """Targets of links and images that lie in the repository."""
    return [
        Found(page, target)
        for page in PAGES
        for target in _LINK.findall(prose(page))
        if not re.match(r"[a-z]+:", target)
    ]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    return {_anchor(heading) for heading in _HEADING.findall(prose(page))}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
