"""Writes the parts of README.md and docs/ that follow from the code: `make docs`, or `python docs/generate.py`.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end of generated -->``; ``NAME`` is a function
of ``generated_parts.PARTS``. Everything around it is written by hand. test_docs.py asserts that all are current.
"""

import re
from pathlib import Path

from generated_parts import PARTS

ROOT = Path(__file__).resolve().parents[1]

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def pages() -> list[Path]:
    """README.md and the pages in docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def renewed(text: str) -> str:
    """A page's text with its generated parts as the code has them now."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n{part[3]}", text)


def main() -> None:
    """Writes the pages that have changed, and names them."""
    for page in pages():
        before = page.read_text("utf-8")
        after = renewed(before)
        if after != before:
            page.write_text(after, "utf-8")
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
