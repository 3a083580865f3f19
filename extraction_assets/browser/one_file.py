"""Pages in one HTML file to send: the style sheet inside, no script, no address but places in the file itself.

The policy in the file fetches nothing, runs nothing and takes one style sheet, the one whose hash it names: if some
text of others still becomes markup, a browser does nothing with it.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import markupsafe
import sqlalchemy as sa

from extraction_assets.browser.links import NoLinks, Value
from extraction_assets.browser.pages.feature import Reading, feature_view
from extraction_assets.browser.rendering import TEMPLATES, environment
from extraction_assets.browser.shown.feature_reads import provenance_of

STYLE_SHEET = TEMPLATES.parent / "static" / "style.css"


def file_policy(style: str) -> str:
    """A policy that allows pictures within the page and the style sheet with exactly this text, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def render_file(template: str, **values: Any) -> str:
    """A template as a page that needs no other file: it has ``style``, the style sheet, and its ``policy``."""
    style = STYLE_SHEET.read_text("utf-8")
    page = environment().get_template(template)
    return page.render(style=markupsafe.Markup(style), policy=file_policy(style), **values)


class FileLinks(NoLinks):
    """Links to the features that stand in the same file; everything else is plain text. See ``Links``."""

    def __init__(self, extraction: str, sae: str, features: Iterable[int]) -> None:
        self._extraction, self._sae, self._features = extraction, sae, frozenset(features)

    def feature(self, extraction: str, sae: str, neuron_index: int, **_: Value) -> str | None:
        here = (extraction, sae) == (self._extraction, self._sae) and neuron_index in self._features
        return f"#{anchor(neuron_index)}" if here else None


def anchor(neuron_index: int) -> str:
    """The id of a feature's part of a file."""
    return f"feature-{neuron_index}"


READING = Reading(width=20, top=20)
"""How texts are shown in a file: nobody can ask for more of them."""


def features_page(connection: sa.Connection, extraction: sa.Row[Any], indices: Sequence[int], chosen: str) -> str:
    """Features of one SAE as one page with an index, in the order given; ``chosen`` says in a few words which they are.

    ``extraction`` is the row of the SAE. Raises UnknownResultError for a feature that there is not.
    """
    views = [feature_view(connection, extraction, index, READING) for index in indices]
    links = FileLinks(extraction.name, extraction.sae, indices)
    return render_file(
        "features_file.html",
        views=views,
        provenance=provenance_of(connection, extraction),
        extraction=extraction,
        chosen=chosen,
        links=links,
        options=READING,
        anchor=anchor,
    )
