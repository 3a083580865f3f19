"""HTML pages of our own from templates: no text of others becomes markup, a control character or a script.

Every text that a template prints is shown as ``visible`` shows it and then escaped. The page's content security policy
fetches nothing, runs nothing and takes one style sheet, the one whose hash it names: if some text
still becomes markup, a browser does nothing with it.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from extraction_assets.engine.corpora.visible_text import visible


def page_environment(folder: Path) -> jinja2.Environment:
    """Jinja2 for the templates in ``folder``. They have the filters ``csp`` (the policy that allows a style sheet) and
    ``multiline`` (text whose line breaks and tabs stay)."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
    )
    environment.filters.update(csp=content_security_policy, multiline=multiline)
    return environment


def content_security_policy(style: str) -> str:
    """A policy that allows pictures within the page and the style sheet with exactly this text, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def multiline(text: str) -> markupsafe.Markup:
    """Escaped text whose line breaks and tabs stay, for ``<pre>``."""
    return markupsafe.escape(visible(text, keep="\n\t"))


def _shown(value: Any) -> Any:
    """What an expression of a template prints: text of others as it may be seen. What is markup already is ours."""
    return visible(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value
