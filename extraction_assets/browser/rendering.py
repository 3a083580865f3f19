"""HTML from templates: no text of others becomes markup, a control character or a script.

Every text that a template prints is shown as ``visible`` shows it and then escaped.
"""

import datetime as dt
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from extraction_assets.engine.corpora.visible_text import visible

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> jinja2.Environment:
    """Jinja2 for the templates. Their filters: ``count`` (1,234), ``share`` (0.123 %), ``value`` (an activation),
    ``utc`` (a time) and ``multiline`` (text whose line breaks and tabs stay, for ``<pre>``)."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(count=count, share=share, value=value, utc=utc, multiline=multiline)
    return made


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


NOT_COMPUTED = "not computed"
"""What stands in the place of a number that no step has computed."""


def utc(moment: dt.datetime) -> str:
    """``2026-01-31 12:00 UTC``."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def multiline(text: str) -> markupsafe.Markup:
    """Escaped text whose line breaks and tabs stay, for ``<pre>``."""
    return markupsafe.escape(visible(text, keep="\n\t"))


def _shown(printed: Any) -> Any:
    """What an expression of a template prints: text of others as it may be seen. What is markup already is ours."""
    return visible(printed) if isinstance(printed, str) and not isinstance(printed, markupsafe.Markup) else printed
