"""The boundary to untrusted files: whatever a parser raises becomes one sentence."""

import contextlib
import errno
from collections.abc import Iterator

from extraction_assets.engine.corpora.documents import CorpusError

_OF_THE_CONTENT = (errno.EINVAL, errno.EOVERFLOW, errno.EFBIG)
"""What the system answers where a damaged file asks it for an impossible place or size."""
_MOST_CHARACTERS = 300


@contextlib.contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Turns what a block raises into ``CorpusError``: ``what`` (which names the file) and the parser's own words.

    Stands around third-party parsers alone: they raise nearly anything on a damaged file (``OSError`` without an
    errno, ``KeyError``, ``RecursionError``, ``MemoryError`` for a false length …). Errors of the file system itself,
    which have an errno and name the file, pass through: some of them are transient.
    """
    try:
        yield
    except (CorpusError, ConnectionError, TimeoutError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno not in _OF_THE_CONTENT:
            raise
        raise CorpusError(f"{what} ({reason(error)})") from error


def reason(error: Exception) -> str:
    """The message of an error in one line, not too long; with its type if the message is empty or unclear alone."""
    text = " ".join(str(error).split())
    if not text or isinstance(error, (KeyError, RecursionError, MemoryError, TypeError)):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
