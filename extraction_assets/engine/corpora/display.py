"""Token ids -> the strings that people see, one for each id."""

import re
from collections.abc import Callable
from typing import Any

from extraction_assets.engine.corpora.visible_text import visible

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A byte token of SentencePiece."""


def display_tokens(tokenizer: Any | None) -> Callable[[list[int]], list[str]]:
    """A function from token ids to one readable string an id.

    A token is decoded by itself; one that is not whole UTF-8 (a piece of a byte-level BPE character, a byte token of
    SentencePiece) shows its bytes as ``\\xNN``. What cannot be seen is escaped, see ``visible``: NUL too, which
    PostgreSQL refuses in text. Line breaks and tabs stay. An id that the tokenizer does not know, or any id where
    there is no tokenizer, shows as ``<id 17>``.
    """
    known: dict[int, str] = {}
    added = {} if tokenizer is None else {i: str(token) for i, token in tokenizer.added_tokens_decoder.items()}

    def display(ids: list[int]) -> list[str]:
        for token_id in ids:
            if token_id not in known:
                text = _token_text(tokenizer, token_id, added.get(token_id))
                known[token_id] = visible(text, keep="\n\t\r")
        return [known[token_id] for token_id in ids]

    return display


def _token_text(tokenizer: Any | None, token_id: int, added: str | None) -> str:
    """``added`` is what the token was added as, text and not bytes, where it was added to the vocabulary."""
    piece = None if tokenizer is None else tokenizer.convert_ids_to_tokens(token_id)
    if tokenizer is None or piece is None:
        return f"<id {token_id}>"
    text: str = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    byte = _BYTE_TOKEN.fullmatch(piece)
    if byte and text != piece:  # the decoder knows it as a byte; it would drop that of a space
        return bytes([int(byte[1], 16)]).decode("ascii", errors="backslashreplace")
    if "\N{REPLACEMENT CHARACTER}" in text:
        text = added or _piece_bytes(piece) or text
    if piece.startswith(_SPACE):  # SentencePiece drops the first space of what is decoded by itself
        spaces = len(piece) - len(piece.lstrip(_SPACE))
        text = " " * spaces + text.lstrip(" ")
    return text


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level BPE vocabulary stands for (GPT-2's ``bytes_to_unicode``)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_alphabet()


def _piece_bytes(piece: str) -> str | None:
    """A byte-level BPE piece with its undecodable bytes as ``\\xNN``; None for a piece of another kind."""
    if not all(ch in _BYTES for ch in piece):
        return None
    return bytes(_BYTES[ch] for ch in piece).decode("utf-8", errors="backslashreplace")
