"""The ids of a corpus's documents: a JSON list of texts, written as they come and read where they are asked for.

A corpus of a billion samples has them in files of many gigabytes, of which no process has to hold more than 8 bytes for
every 16 documents.
"""

import itertools
import json
import mmap
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, overload

from extraction_assets.stores.sealed import damaged, open_stored, write_all

_SPACING = 16
"""Documents from one noted place to the next, which are read together."""

_TEXT = rb'"[ !#-\[\]-~]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[ !#-\[\]-~]*)*"[ \n]*'
"""A JSON text in ASCII, as ``json.dumps`` writes it."""
_BEGIN, _EMPTY = re.compile(rb"\[[ \n]*"), re.compile(rb"\[[ \n]*\][ \n]*")
_BLOCK = re.compile(rb"(?:%b,[ \n]*){%d}" % (_TEXT, _SPACING))
_LAST = re.compile(rb"(?:%b,[ \n]*){0,%d}%b\][ \n]*" % (_TEXT, _SPACING - 1, _TEXT))


class DocumentIdsWriter:
    """Writes ``json.dumps`` of a list of texts, of which it is given some at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._is_first = file, True
        self._write(b"[")

    def add(self, ids: Sequence[str]) -> None:
        """The next of them."""
        if ids:
            self._write((b"" if self._is_first else b", ") + json.dumps(list(ids))[1:-1].encode())
            self._is_first = False

    def end(self) -> None:
        """There are no more."""
        self._write(b"]")

    def _write(self, piece: bytes) -> None:
        write_all(self._file, memoryview(piece))


class DocumentIds(Sequence[str]):
    """The texts of a file that ``DocumentIdsWriter`` wrote, mapped into memory.

    Raises DamagedFileError, which says ``advice``, if it is anything else.
    """

    def __init__(self, path: Path, advice: str) -> None:
        self._path, self._advice = path, advice
        with open_stored(path, advice) as file:
            try:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # nothing in it
                raise self._damaged() from error
        self._places = array("q")
        if _EMPTY.fullmatch(self._bytes) is None:
            self._go_through()
        self._count = max(0, len(self._places) - 1) * _SPACING
        self._count += len(self._block(len(self._places) - 1)) if self._places else 0

    def _go_through(self) -> None:
        """Notes where every ``_SPACING``-th text is."""
        begin = _BEGIN.match(self._bytes)
        if begin is None:
            raise self._damaged()
        self._places.append(begin.end())
        while block := _BLOCK.match(self._bytes, self._places[-1]):
            self._places.append(block.end())
        if _LAST.fullmatch(self._bytes, self._places[-1]) is None:
            raise self._damaged()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(self._count)[index]]
        number = range(self._count)[index]
        return self._block(number // _SPACING)[number % _SPACING]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(map(self._block, range(len(self._places))))

    def _block(self, place: int) -> list[str]:
        """The texts from a noted place to the next."""
        first = self._places[place]
        if place + 1 < len(self._places):
            ids: list[str] = json.loads(b"[%b]" % self._bytes[first : self._places[place + 1]].rstrip(b", \n"))
        else:
            ids = json.loads(b"[%b" % self._bytes[first:])
        return ids

    def _damaged(self) -> Exception:
        return damaged(self._path, "it is no list of document ids", self._advice)
