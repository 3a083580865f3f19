"""The training text: the standard library's files, divided into training and held out, cut into samples.

Shape letters: N samples, T positions.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from extraction_assets.engine.corpora.standard_library import path_hash, standard_library_files

HELD_OUT_ONE_IN = 10
SPECIAL_TOKEN = "<|endoftext|>"
SPECIAL_TOKEN_ID = 0


class Document(NamedTuple):
    """One source file."""

    path: str
    text: str

    @property
    def byte_count(self) -> int:
        """Length of the text in UTF-8 bytes."""
        return len(self.text.encode())


class Samples(NamedTuple):
    """Rows of ``[BOS] + tokens``, one document a row, padded on the right."""

    token_ids: torch.Tensor
    """[N, T] int64."""
    is_counted: torch.Tensor
    """[N, T] bool: True at tokens of the text, False at BOS and padding (which share an id)."""

    def split(self, batch_size: int) -> Iterator["Samples"]:
        """In batches of at most B samples, in order."""
        for token_ids, is_counted in zip(
            self.token_ids.split(batch_size), self.is_counted.split(batch_size), strict=True
        ):
            yield Samples(token_ids, is_counted)


def read_documents(sources: Path | None = None) -> list[Document]:
    """The non-empty files of a standard library in their fixed order, newlines untouched."""
    files = standard_library_files(sources)
    documents = [Document(path, file.read_bytes().decode()) for path, file in files]
    return [document for document in documents if document.text]


def is_held_out(path: str) -> bool:
    """Whether a file is never trained on: a tenth of the files, by the hash of their path."""
    return int(path_hash(path), 16) % HELD_OUT_ONE_IN == 0


def documents_hash(documents: list[Document]) -> str:
    """SHA-256 over paths and texts: which text exactly was used."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(f"{document.path}\0{document.text}\0".encode())
    return digest.hexdigest()


def cut_into_samples(
    documents: list[np.ndarray], sample_length: int, first_lengths: np.ndarray | None = None
) -> Samples:
    """Cut tokenized documents ([tokens] each) into samples of ``[BOS] + (sample_length - 1)`` tokens.

    ``first_lengths`` ([documents], from 1) shortens each document's first piece, and so moves every later
    cut; without it all pieces but the last are full.
    """
    piece_length = sample_length - 1
    if first_lengths is None:
        first_lengths = np.full(len(documents), piece_length)
    pieces: list[np.ndarray] = []
    for ids, first in zip(documents, first_lengths, strict=True):
        starts = [0, *range(int(first), len(ids), piece_length)]
        ends = [*starts[1:], len(ids)]
        pieces += [ids[start:end] for start, end in zip(starts, ends, strict=True)]
    return _pad(pieces, sample_length)


def shuffled_batches(documents: list[np.ndarray], sample_length: int, batch_size: int, seed: int) -> Iterator[Samples]:
    """Endless batches of B samples ([B, T]); every pass over the documents cuts them at other places.

    New cuts keep a small corpus fresh: over the passes each token stands at every position of a sample.
    """
    random = np.random.default_rng(seed)
    while True:
        first_lengths = random.integers(1, sample_length, size=len(documents))
        samples = cut_into_samples(documents, sample_length, first_lengths)
        order = torch.from_numpy(random.permutation(len(samples.token_ids)))
        for rows in order.split(batch_size):
            # Short batches are kept only where the whole corpus is smaller than one batch.
            if len(rows) == batch_size or len(order) < batch_size:
                yield Samples(samples.token_ids[rows], samples.is_counted[rows])


def _pad(pieces: list[np.ndarray], sample_length: int) -> Samples:
    token_ids = np.full((len(pieces), sample_length), SPECIAL_TOKEN_ID, dtype=np.int64)  # [N, T]
    for row, piece in zip(token_ids, pieces, strict=True):
        row[1 : 1 + len(piece)] = piece
    lengths = np.array([len(piece) for piece in pieces])[:, None]  # [N, 1]
    positions = np.arange(sample_length)[None]  # [1, T]
    is_counted = (positions >= 1) & (positions <= lengths)  # [N, T]
    return Samples(torch.from_numpy(token_ids), torch.from_numpy(is_counted))
