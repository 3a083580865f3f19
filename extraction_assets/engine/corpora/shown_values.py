"""Values of untrusted columns in messages of errors, and the one check that all text passes."""

import reprlib
from typing import Any

from extraction_assets.engine.corpora.boundary import reason
from extraction_assets.engine.corpora.documents import CorpusError

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 58
SHORT.maxlist = SHORT.maxarray = 20


def shown(value: Any) -> str:
    """A value with its type, not too long, of which no more is looked at than that."""
    text = SHORT.repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def check_unicode(text: str, where: str) -> str:
    """``text``, unless it holds half of a surrogate pair, which is no character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(f"{where} holds text that is not Unicode ({reason(error)})") from error
    return text
