"""What every corpus source gives: documents, in an order that stays."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np


class Conversation(NamedTuple):
    """A document that is a chat, before the tokenizer's chat template makes text of it."""

    messages: list[dict[str, Any]]
    """Each has a ``role``, and a ``content`` that is text or a list of text parts."""
    where: str
    """File, row and column that it comes from, for errors."""

    @property
    def texts(self) -> Iterator[str]:
        """The texts of the messages' contents."""
        for content in (message.get("content", "") for message in self.messages):
            yield from [content] if isinstance(content, str) else [part["text"] for part in content]


Document = tuple[str, str | np.ndarray | Conversation]
"""(document id, text, int64 token ids or messages)"""

Item = TypeVar("Item")


class CorpusError(ValueError):
    """A corpus that cannot be read or does not hold enough samples; the message says what to change.

    Bytes of a file's name that are not UTF-8, which no log and no database takes, stand in it as ``\\udcNN``.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode("utf-8"))


class Source(Protocol):
    """A corpus source that was found."""

    @property
    def files(self) -> Sequence[Path]:
        """The local files that documents are read from, in order; empty for a hub data set."""
        ...

    @property
    def num_documents(self) -> int | None:
        """All documents of the source, as far as that is known without reading on; None while it is not."""
        ...

    def documents(self) -> Iterator[Document]:
        """Every document, each time in the same order; holds few of them at a time. Raises CorpusError."""
        ...


def document_order(count: int, seed: int | None) -> np.ndarray:
    """int64 [count]: a permutation of the documents, ascending without a seed.

    Documents are sorted by the raw 64-bit numbers of PCG64, which NumPy promises to keep (NEP 19), unlike the
    permutations that it draws.
    """
    if seed is None:
        return np.arange(count)
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def relative_names(files: Sequence[Path], folder: Path) -> list[str]:
    """Posix paths relative to ``folder``; a file elsewhere keeps its path. They are document ids, so that bytes of a
    name that are not UTF-8 stand as ``\\xNN``."""
    paths = (path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path) for path in files)
    return [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths]


def batched(items: Iterable[Item], most: int) -> Iterator[tuple[Item, ...]]:
    """Groups of 1, 2, 4, … and then of ``most``, the last one smaller: who needs few items has few looked at."""
    iterator, size = iter(items), 1
    while batch := tuple(islice(iterator, size)):
        yield batch
        size = min(2 * size, most)
