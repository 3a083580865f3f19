"""HTML from templates: no text of others becomes markup, a control character or a script.

Every text that a template prints is shown as ``visible`` shows it and then escaped.
"""

import datetime as dt
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from extraction_assets.browser.shown.file_names import last_part
from extraction_assets.browser.shown.numbers import count, share, value
from extraction_assets.browser.shown.whitespace import chip_text
from extraction_assets.engine.corpora.visible_text import visible

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> jinja2.Environment:
    """Jinja2 for the templates. Their filters: ``count`` (1,234), ``share`` (0.123 %), ``value`` (an activation),
    ``utc`` (a time), ``chip`` (a token in a box), ``last_part`` (of a path) and ``multiline`` (text whose line breaks
    and tabs stay, for ``<pre>``)."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        count=count, share=share, value=value, utc=utc, chip=chip_text, last_part=last_part, multiline=multiline
    )
    return made


def utc(moment: dt.datetime) -> str:
    """``2026-01-31 12:00 UTC``."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def multiline(text: str) -> markupsafe.Markup:
    """Escaped text whose line breaks and tabs stay, for ``<pre>``."""
    return markupsafe.escape(visible(text, keep="\n\t"))


def _shown(printed: Any) -> Any:
    """What an expression of a template prints: text of others as it may be seen. What is markup already is ours."""
    return visible(printed) if isinstance(printed, str) and not isinstance(printed, markupsafe.Markup) else printed
