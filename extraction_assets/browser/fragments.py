"""Parts of pages for a page of others, such as a notebook: by the same templates, without links and scripts, and with a
style sheet that holds inside them alone."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import markupsafe

from extraction_assets.browser.links import NoLinks
from extraction_assets.browser.rendering import TEMPLATES, environment
from extraction_assets.browser.shown.context import Context
from extraction_assets.browser.shown.feature_parts import ShownExample
from extraction_assets.browser.shown.runs import runs_markup

_STYLE_SHEET = TEMPLATES.parent / "static" / "style.css"
_OF_TEXTS = re.compile(r":root|ol\.ex|^\.(ctx|t\d+|val|doc|vh)\b|^mark\b|\.ctx,")
_DARK = "@media (prefers-color-scheme: dark)"


class OfFeature(NamedTuple):
    """Whose examples they are."""

    extraction: str
    sae: str
    neuron_index: int


class _Reading(NamedTuple):
    marks: bool = False
    lines: bool = False


def examples_fragment(rows: Sequence[ShownExample], of: OfFeature, *, title: str = "", more: int = 0) -> str:
    """Rows of examples as HTML. ``more`` are those that are not shown."""
    page = environment().get_template("fragment_examples.html")
    return page.render(
        style=fragment_style(), rows=rows, of=of, title=title, more=more, links=NoLinks(), options=_Reading()
    )


def sample_fragment(text: Context, title: str, notes: dict[int, str]) -> str:
    """A whole sample as HTML; ``notes`` say what hovering says of positions."""
    page = environment().get_template("fragment_sample.html")
    return page.render(style=fragment_style(), title=title, text=runs_markup(text.runs(notes=notes)))


@cache
def fragment_style() -> markupsafe.Markup:
    """The rules of the pages' style sheet that texts in context need, for a fragment alone (CSS ``@scope``)."""
    kept = [rule for rule in _rules(_STYLE_SHEET.read_text("utf-8")) if _is_of_texts(rule)]
    inside = "\n".join(kept).replace(":root", ":scope")
    return markupsafe.Markup(f"@scope (.extraction-assets) {{\n{inside}\n}}")


def _is_of_texts(rule: str) -> bool:
    before = rule.partition("{")[0].strip()
    return before == _DARK or (not before.startswith("@") and _OF_TEXTS.search(before) is not None)


def _rules(style: str) -> Iterator[str]:
    """The outermost rules of a style sheet, without comments."""
    depth, begun = 0, 0
    style = re.sub(r"/\*.*?\*/", "", style, flags=re.DOTALL)
    for at, character in enumerate(style):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "}" and depth == 0:
            yield " ".join(style[begun : at + 1].split())
            begun = at + 1
