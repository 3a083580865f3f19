"""JSONL files as a corpus: one document a line."""

import json
from array import array
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from extraction_assets.engine.corpora.columns import Columns, row_document
from extraction_assets.engine.corpora.documents import CorpusError, Document, document_order

_COMPRESSED = (".gz", ".bz2", ".zst")


class JsonLines:
    """JSONL files by name, some of them perhaps compressed. A document's id is by default ``<file>:<line>``."""

    def __init__(
        self, names: Sequence[str], files: Sequence[Path], columns: Columns, shuffle_seed: int | None = None
    ) -> None:
        self.files, self._names, self._columns, self._seed = files, names, columns, shuffle_seed
        compressed = [file for file in files if file.suffix in _COMPRESSED]
        if compressed and shuffle_seed is not None:
            raise CorpusError(
                f"shuffle_seed: lines of {compressed[0]} cannot be read in another order, because it is compressed: "
                "decompress it, or store the documents as Parquet"
            )

    def documents(self) -> Iterator[Document]:
        if self._seed is not None:
            yield from self._shuffled(self._seed)
            return
        for name, file in zip(self._names, self.files, strict=True):
            for number, line in enumerate(_lines(file), start=1):
                if line.strip():
                    yield self._document(name, file, number, line)

    def _shuffled(self, seed: int) -> Iterator[Document]:
        """Notes where each line begins, 20 bytes a document, then reads line by line."""
        index = [_line_starts(file) for file in self.files]
        owners = np.repeat(np.arange(len(index)), [len(starts) for _, starts in index])
        firsts = np.concatenate([[0], np.cumsum([len(starts) for _, starts in index])])
        for document in document_order(len(owners), seed).tolist():
            owner = int(owners[document])
            numbers, starts = index[owner]
            own = document - int(firsts[owner])
            with self.files[owner].open("rb") as file:
                file.seek(starts[own])
                line = file.readline()
            yield self._document(self._names[owner], self.files[owner], numbers[own], line)

    def _document(self, name: str, file: Path, number: int, line: bytes) -> Document:
        where = f"{file}, line {number}"
        try:
            row: Any = json.loads(line)
        except ValueError as error:  # not JSON, or not UTF-8
            raise CorpusError(f"{where} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise CorpusError(f"{where} holds a JSON {type(row).__name__}, not an object with columns")
        self._columns.check(list(row), where)
        return row_document(row, self._columns, f"{name}:{number}", where)


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with pa.input_stream(str(file), compression="detect") as stream, BufferedReader(stream, 1 << 20) as lines:
            yield from lines
    except pa.ArrowException as error:
        raise CorpusError(f"corpus file {file} cannot be read ({error})") from error
    except OSError as error:
        if file.suffix not in _COMPRESSED:
            raise
        raise CorpusError(f"corpus file {file} cannot be decompressed ({error})") from error


def _line_starts(file: Path) -> tuple[array, array]:
    """Number (from 1) and first byte of each line that is not blank."""
    numbers, starts, position = array("q"), array("q"), 0
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            numbers.append(number)
            starts.append(position)
        position += len(line)
    return numbers, starts
