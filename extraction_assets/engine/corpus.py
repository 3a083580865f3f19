"""Text -> samples, attention mask, special tokens mask and document ids."""

import glob
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from extraction_assets.engine.standard_library import standard_library_files

Document = tuple[str, str]
"""(document id, text)"""


class CorpusError(ValueError):
    """A corpus that cannot be read or does not hold enough samples; the message says what to change."""


class TokenizedCorpus(NamedTuple):
    """Samples of a corpus, padded on the right to T positions."""

    token_ids: np.ndarray
    """int32 [N, T]; 0 at padding."""
    attention_mask: np.ndarray
    """bool [N, T]: False at padding, whatever the tokenizer's pad id is."""
    special_tokens_mask: np.ndarray
    """bool [N, T]: True at special tokens (BOS and the like)."""
    document_numbers: np.ndarray
    """int64 [N]: index into ``document_ids``."""
    first_tokens: np.ndarray
    """int64 [N]: index of the sample's first token of text inside its document's tokens."""
    document_ids: list[str]


def text_documents(source: str) -> Iterator[Document]:
    """Documents of a text file, of a folder's files (recursively) or of a glob, sorted by path.

    Raises CorpusError where nothing matches or a file is not UTF-8.
    """
    root = Path(source)
    pattern = f"{glob.escape(source)}/**/*" if root.is_dir() else source
    files = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not files:
        raise CorpusError(f"corpus source {source!r} matches no file")
    folder = root if root.is_dir() else Path(files[0]).parent
    for file in files:
        try:
            text = Path(file).read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(f"corpus file {file} is not UTF-8 text ({error})") from error
        path = Path(file)
        yield (path.relative_to(folder).as_posix() if path.is_relative_to(folder) else file), text


def standard_library_documents() -> Iterator[Document]:
    """The running Python's standard library, one module a document, in a fixed order that mixes modules."""
    for name, path in standard_library_files():
        yield name, path.read_text("utf-8")


def tokenize_corpus(
    documents: Iterable[Document],
    tokenizer: Any,
    max_length: int,
    num_samples: int,
    *,
    start_sample: int = 0,
    prepend_bos: bool | None = None,
    on_samples: Callable[[int], None] = lambda _: None,
) -> TokenizedCorpus:
    """Samples ``start_sample`` to ``start_sample + num_samples`` of the documents.

    A sample never spans two documents; a long document is cut into several, tails kept and padded.
    ``on_samples`` is called with the number of new samples as they come. Reads no more documents than needed.
    Raises CorpusError that names both numbers where there are fewer samples than asked for.
    """
    bos = _bos_token(tokenizer, prepend_bos)
    document_ids: list[str] = []
    rows: list[list[int]] = []
    origins: list[tuple[int, int]] = []
    wanted = start_sample + num_samples
    seen = 0
    for tokens, document, first_token in islice(_samples(documents, tokenizer, max_length, bos, document_ids), wanted):
        seen += 1
        if seen > start_sample:
            rows.append(tokens)
            origins.append((document, first_token))
            on_samples(1)
    if seen < wanted:
        raise CorpusError(
            f"the corpus holds {seen} samples of {max_length} positions, but {wanted} are asked for "
            f"(start_sample {start_sample} + evaluation_samples {num_samples}): lower evaluation_samples or add text"
        )
    return _pad(rows, origins, document_ids, max_length, set(tokenizer.all_special_ids))


def _bos_token(tokenizer: Any, prepend_bos: bool | None) -> list[int]:
    """The BOS id as a list, empty where no BOS is to be prepended."""
    if prepend_bos is False or (prepend_bos is None and tokenizer.bos_token_id is None):
        return []
    if tokenizer.bos_token_id is None:
        raise CorpusError("prepend_bos is set, but the tokenizer has no BOS token")
    return [tokenizer.bos_token_id]


def _samples(
    documents: Iterable[Document], tokenizer: Any, max_length: int, bos: list[int], document_ids: list[str]
) -> Iterator[tuple[list[int], int, int]]:
    """(token ids, document number, first token) of each sample; tokenizes 64 documents at a time."""
    width = max_length - len(bos)
    if width < 1:
        raise CorpusError(f"max_length {max_length} leaves no room for text after the BOS token")
    for batch in _batched(documents, 64):
        encoded = tokenizer([text for _, text in batch], add_special_tokens=False, verbose=False)
        for (name, _), ids in zip(batch, encoded["input_ids"], strict=True):
            document_ids.append(name)
            for first in range(0, len(ids), width):
                yield bos + ids[first : first + width], len(document_ids) - 1, first


def _pad(
    rows: list[list[int]],
    origins: list[tuple[int, int]],
    document_ids: list[str],
    max_length: int,
    special_ids: set[int],
) -> TokenizedCorpus:
    lengths = np.array([len(row) for row in rows])
    attention_mask = np.arange(max_length) < lengths[:, None]  # [N, T]
    token_ids = np.zeros((len(rows), max_length), dtype=np.int32)
    token_ids[attention_mask] = np.concatenate([np.asarray(row, dtype=np.int32) for row in rows])
    special = np.isin(token_ids, sorted(special_ids)) & attention_mask
    numbers, first_tokens = np.array(origins, dtype=np.int64).T
    return TokenizedCorpus(token_ids, attention_mask, special, numbers.copy(), first_tokens.copy(), document_ids)


def display_tokens(tokenizer: Any) -> Callable[[list[int]], list[str]]:
    """A function from token ids to one readable string an id.

    A token is decoded by itself; one that is not whole UTF-8 (a piece of a byte-level BPE character) shows its
    bytes as ``\\xNN``, and control characters are escaped, NUL too, which PostgreSQL refuses in text.
    """
    known: dict[int, str] = {}

    def display(ids: list[int]) -> list[str]:
        for token_id in ids:
            if token_id not in known:
                known[token_id] = _display_token(tokenizer, token_id)
        return [known[token_id] for token_id in ids]

    return display


def _display_token(tokenizer: Any, token_id: int) -> str:
    text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    piece = tokenizer.convert_ids_to_tokens(token_id)
    if "\N{REPLACEMENT CHARACTER}" in text:
        text = _piece_bytes(piece) or text
    if piece.startswith("\N{LOWER ONE EIGHTH BLOCK}") and not text.startswith(" "):
        text = f" {text}"  # SentencePiece drops the space of a token that is decoded by itself
    return "".join(ch if ch.isprintable() or ch in "\n\t\r" else f"\\x{ord(ch):02x}" for ch in text)


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


def _batched(items: Iterable[Document], size: int) -> Iterator[tuple[Document, ...]]:
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch
