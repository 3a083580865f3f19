"""Tokens of documents -> samples of at most ``max_length`` tokens."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.corpora.message_spans import MessageSpan


class Piece(NamedTuple):
    """Tokens of a document that stand together in a sample."""

    document: int
    first: int
    """Index of the first inside its document's tokens."""
    length: int
    place: int
    """Its position in the sample."""


class PackedSample(NamedTuple):
    """One sample, without padding."""

    token_ids: np.ndarray
    """int64 [t], t at most ``max_length``."""
    document: int
    """Number of the document that its first token of text is of."""
    first_token: int
    """Index of that token inside its document's tokens, as they were given to be packed."""
    pieces: tuple[Piece, ...] = ()
    """What it is made of, without BOS tokens and separators."""
    messages: tuple[MessageSpan, ...] | None = None
    """The messages in it, by position; None if no document of it is a chat."""


def pack_documents(documents: Iterable[np.ndarray], max_length: int, bos: int | None) -> Iterator[PackedSample]:
    """Samples that never span two documents; a longer document is cut into several, its tail is kept.

    BOS begins a sample unless its text begins with BOS itself, where a document is cut at one (GPT-2's BOS ends texts).
    """
    prefix = _prefix(bos)
    _check_width(max_length, len(prefix))
    for number, ids in enumerate(documents):
        first = 0
        while first < len(ids):
            before = prefix if ids[first] != bos else prefix[:0]
            part = ids[first : first + max_length - len(before)]
            piece = Piece(number, first, len(part), len(before))
            yield PackedSample(np.concatenate([before, part]), number, first, (piece,))
            first += len(part)


def pack_concatenated(
    documents: Iterable[np.ndarray], max_length: int, bos: int | None, separator: int | None
) -> Iterator[PackedSample]:
    """Samples of documents joined with ``separator`` between them; all but the last are full.

    The rules are those of SAELens's ``concat_and_batch_sequences``: BOS begins a sample unless its text begins with BOS
    itself; a separator stands before every document that is added to a sample that has text already, unless
    the document begins with it. So no separator stands between documents that end and begin with a sample.
    """
    _check_width(max_length, len(_prefix(bos)))
    sample: list[np.ndarray] = []
    filled, pieces = 0, list[Piece]()
    for number, ids in enumerate(documents):
        first = 0
        while first < len(ids):
            leading = bos if not filled else separator if first == 0 else None
            if leading is not None and ids[first] != leading:
                sample.append(_prefix(leading))
                filled += 1
            part = ids[first : first + max_length - filled]
            sample.append(part)
            pieces.append(Piece(number, first, len(part), filled))
            filled, first = filled + len(part), first + len(part)
            if filled == max_length:
                yield _joined(sample, pieces)
                sample, filled, pieces = [], 0, []
    if filled:
        yield _joined(sample, pieces)


def _joined(sample: list[np.ndarray], pieces: list[Piece]) -> PackedSample:
    return PackedSample(np.concatenate(sample), pieces[0].document, pieces[0].first, tuple(pieces))


def distinct_samples(samples: Iterable[PackedSample]) -> Iterator[PackedSample]:
    """Samples whose tokens no earlier one has. Holds 16 bytes of hash for each."""
    seen: set[bytes] = set()
    for sample in samples:
        digest = hashlib.blake2b(sample.token_ids.tobytes(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield sample


def _prefix(token: int | None) -> np.ndarray:
    return np.array([] if token is None else [token], dtype=np.int64)


def _check_width(max_length: int, prefix: int) -> None:
    if max_length <= prefix:
        raise CorpusError(f"max_length {max_length} leaves no room for text after the BOS token")
