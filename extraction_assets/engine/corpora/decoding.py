"""Bytes -> the text of a document, by one rule for every container: UTF-8, one leading BOM dropped, newlines kept."""

from pathlib import Path

from extraction_assets.engine.corpora.documents import CorpusError

RULES = 2
"""Version of the rule. Corpora that were made before version 2 have CRLF read as LF in text files, keep the BOM of text
files, and keep a BOM that begins a string of JSONL, of Parquet or of a data set."""

MAX_DOCUMENT_BYTES = 1 << 29
"""512 MiB: a document is held and tokenized as one string, which takes many times its size."""

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")


def without_bom(text: str) -> str:
    """``text`` without one leading byte order mark."""
    return text.removeprefix(_BOM)


def decoded(raw: bytes, where: str) -> str:
    """The text of some bytes; CorpusError, which begins with ``where``, for what is not UTF-8 text."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = ": it begins as UTF-16 does, convert it to UTF-8" if raw[:2] in _WIDE_BOMS else ""
        raise CorpusError(f"{where} is not UTF-8 text ({error}){hint}") from error
    if raw and 2 * raw.count(0) >= len(raw):
        raise CorpusError(f"{where} is not UTF-8 text: half of its bytes or more are NUL, as in UTF-16 or a cut file")
    return without_bom(text)


def read_text(path: Path) -> str:
    """The text of a file that is one document."""
    with path.open("rb") as file:
        raw = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise CorpusError(f"corpus file {path} {too_long('it')}")
    return decoded(raw, f"corpus file {path}")


def too_long(what: str) -> str:
    """The end of a sentence about a document that is too long."""
    size = f"{MAX_DOCUMENT_BYTES >> 20} MiB" if MAX_DOCUMENT_BYTES >= 1 << 20 else f"{MAX_DOCUMENT_BYTES} bytes"
    return f"is longer than {size}, the most that one document may have: split {what} into several documents"
