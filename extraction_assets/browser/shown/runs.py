"""Runs of tokens as markup. Written in Python, not in a template: a page has thousands of tokens, and this is ten times
as fast."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import markupsafe

from extraction_assets.browser.shown.whitespace import Segment
from extraction_assets.engine.corpora.visible_text import visible


class Run(NamedTuple):
    """Neighbouring tokens that look alike: the unit of a page's markup."""

    segments: list[Segment]
    shade: int = 0
    strongest: bool = False
    special: bool = False
    role: str = ""
    """Who speaks from here on."""
    title: str = ""
    """On hover: token, activation, position."""
    spoken: str = ""
    """The activation for those who do not see the shade."""
    position: int = 0
    """Of its first token, or of the first that fires."""


def runs_markup(runs: Iterable[Run], linked: bool = False) -> markupsafe.Markup:
    """Runs as HTML, every text escaped and what cannot be seen in it written out.

    Shades are classes, since the policy of the pages allows no style of an element's own. ``linked`` makes a link to
    its position, ``#p12``, of each run that is shaded.
    """
    return markupsafe.Markup("".join(_markup(run, linked) for run in runs))


def _markup(run: Run, linked: bool) -> str:
    role = f'<b class="role">«{_escaped(run.role)}»</b>' if run.role else ""
    inner = "".join(map(_part, run.segments))
    if run.shade:
        shown = f'class="t t{run.shade}{" peak" if run.strongest else ""}" title="{_escaped(run.title)}"'
        inner = f'{inner}<span class="vh"> ({_escaped(run.spoken)}) </span>'
        return role + (f'<a {shown} href="#p{run.position}">{inner}</a>' if linked else f"<mark {shown}>{inner}</mark>")
    return role + (f'<span class="sp">{inner}</span>' if run.special else inner)


def _part(part: Segment) -> str:
    return f'<span class="ws" aria-hidden="true">{_escaped(part.text)}</span>' if part.sign else _text(part.text)


_KEPT = re.compile("([\n\t])")


def _text(text: str) -> str:
    """A text whose line breaks and tabs stay. ``visible`` is quick where there are none."""
    if "\n" not in text and "\t" not in text:
        return _escaped(text)
    return "".join(part if part in ("\n", "\t") else _escaped(part) for part in _KEPT.split(text))


def _escaped(text: str) -> str:
    return str(markupsafe.escape(visible(text)))
