"""JSONL files as a corpus: one document a line."""

import json
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from extraction_assets.engine.corpora import decoding
from extraction_assets.engine.corpora.boundary import one_sentence
from extraction_assets.engine.corpora.columns import Columns, row_document
from extraction_assets.engine.corpora.documents import CorpusError, Document, document_order
from extraction_assets.engine.corpora.kinds import compression


class JsonLines:
    """JSONL files by name, some of them perhaps compressed. A document's id is by default ``<file>:<line>``."""

    num_documents: int | None = None
    """Not known before all lines are read."""

    def __init__(
        self, names: Sequence[str], files: Sequence[Path], columns: Columns, shuffle_seed: int | None = None
    ) -> None:
        self.files, self._names, self._columns, self._seed = files, names, columns, shuffle_seed
        compressed = [file for file in files if compression(file)]
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
        self.num_documents = len(owners)
        for document in document_order(len(owners), seed).tolist():
            owner = int(owners[document])
            numbers, starts = index[owner]
            position = document - int(firsts[owner])
            with self.files[owner].open("rb") as file:
                file.seek(starts[position])
                line = file.readline(decoding.MAX_DOCUMENT_BYTES)
            yield self._document(self._names[owner], self.files[owner], numbers[position], line)

    def _document(self, name: str, file: Path, number: int, line: bytes) -> Document:
        where = f"{file}, line {number}"
        row = _json_row(line, where)
        self._columns.check(list(row), where)
        repeated = row.repeated & set(self._columns.names) if isinstance(row, _RepeatedKeys) else None
        if repeated:
            raise CorpusError(f"{where} has the key {min(repeated)!r} twice")
        return row_document(row, self._columns, f"{name}:{number}", where)


class _RepeatedKeys(dict[str, Any]):
    """An object that has some keys twice, with the last value of each."""

    repeated: frozenset[str]


def _json_row(line: bytes, where: str) -> dict[str, Any]:
    with one_sentence(f"{where} is not JSON"):  # nor UTF-8, or nested too deep, or with a number of 5,000 digits
        row: Any = json.loads(decoding.without_bom(line.decode("utf-8")), object_pairs_hook=_json_object)
    if not isinstance(row, dict):
        raise CorpusError(f"{where} holds a JSON {type(row).__name__}, not an object with columns")
    return row


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    row, times = _RepeatedKeys(plain), Counter(name for name, _ in pairs)
    row.repeated = frozenset(name for name, number in times.items() if number > 1)
    return row


def _lines(file: Path) -> Iterator[bytes]:
    """Lines with their ends. Holds one of them, of ``MAX_DOCUMENT_BYTES`` at most, and 1 MiB of the file."""
    packed = compression(file)
    number, most = 0, decoding.MAX_DOCUMENT_BYTES
    with one_sentence(f"corpus file {file} cannot be {'decompressed' if packed else 'read'}"):
        # By bytes, as a name may not be UTF-8.
        opened = pa.input_stream(pa.OSFile(os.fsencode(file)), compression=packed)
        with opened as stream, BufferedReader(stream, 1 << 20) as lines:
            while line := lines.readline(most + 1):
                number += 1
                if len(line) > most:
                    raise CorpusError(f"{file}, line {number} {decoding.too_long('it')}")
                yield line


def _line_starts(file: Path) -> tuple[array, array]:
    """Number (from 1) and first byte of each line that is not blank."""
    numbers, starts, position = array("q"), array("q"), 0
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            numbers.append(number)
            starts.append(position)
        position += len(line)
    return numbers, starts
