"""Parquet files as a corpus: one document a row, read by row group."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from extraction_assets.engine.corpora.boundary import one_sentence
from extraction_assets.engine.corpora.columns import Columns, table_documents
from extraction_assets.engine.corpora.documents import CorpusError, Document, document_order

_BATCH_ROWS = 1024
_SHUFFLED_ROWS = 16_384
"""Documents held at once where they are shuffled: each row group is read again for each so many."""


class _RowGroup(NamedTuple):
    file: int
    number: int
    first_row: int
    rows: int


class ParquetFiles:
    """Parquet files by name. A document's id is by default ``<file>:<row>``, rows counted from 0."""

    def __init__(
        self, names: Sequence[str], files: Sequence[Path], columns: Columns, shuffle_seed: int | None = None
    ) -> None:
        self.files, self._names, self._columns, self._seed = files, names, columns, shuffle_seed
        self._groups: list[_RowGroup] = []
        for number, path in enumerate(files):
            no_parquet = f"corpus file {path} is not a Parquet file, or a damaged one"
            with one_sentence(no_parquet), _opened(path) as parquet:
                self._groups += _row_groups(number, parquet.metadata)
                present = parquet.schema_arrow.names
            columns.check(present, str(path))

    @property
    def num_documents(self) -> int:
        return sum(group.rows for group in self._groups)

    def documents(self) -> Iterator[Document]:
        if self._seed is not None:
            yield from self._shuffled(self._seed)
            return
        for number, (name, path) in enumerate(zip(self._names, self.files, strict=True)):
            first = 0
            for batch in _batches(path, self._columns):
                table = pa.Table.from_batches([batch])
                yield from self._table_documents(table, range(first, first + len(table)), name, path)
                first += len(table)
            rows = sum(group.rows for group in self._groups if group.file == number)
            if first != rows:
                raise CorpusError(f"corpus file {path} is damaged (it holds {first} rows, and says {rows})")

    def _table_documents(self, table: pa.Table, rows: Sequence[int], name: str, path: Path) -> Iterator[Document]:
        yield from table_documents(table, self._columns, rows, f"{name}:", str(path))

    def _shuffled(self, seed: int) -> Iterator[Document]:
        """Documents in groups of the new order; each group's come from whatever row groups they lie in."""
        firsts = np.cumsum([0, *(group.rows for group in self._groups)])
        order = document_order(int(firsts[-1]), seed)
        for start in range(0, len(order), _SHUFFLED_ROWS):
            wanted = order[start : start + _SHUFFLED_ROWS]
            owners = np.searchsorted(firsts, wanted, side="right") - 1
            found: dict[int, Document] = {}
            for owner in np.unique(owners).tolist():
                slots = np.flatnonzero(owners == owner)
                documents = self._rows(self._groups[owner], wanted[slots] - firsts[owner])
                found.update(zip(slots.tolist(), documents, strict=True))
            yield from (found[slot] for slot in range(len(wanted)))

    def _rows(self, group: _RowGroup, rows: np.ndarray) -> Iterator[Document]:
        """Documents at some rows of a row group."""
        path = self.files[group.file]
        with one_sentence(f"corpus file {path} is damaged"), _opened(path) as file:
            table = _without_views(file.read_row_group(group.number, columns=self._columns.names)).take(pa.array(rows))
        yield from self._table_documents(table, (rows + group.first_row).tolist(), self._names[group.file], path)


def _without_views(table: pa.Table) -> pa.Table:
    """The same values in types that Arrow can take rows from: it cannot from views of text and lists."""
    return pa.table(
        {name: _without_view(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    )


def _without_view(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    kind = column.type
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.array(column.to_pylist(), pa.large_list(kind.value_type))  # Arrow's own cast loses numbers
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}.get(kind)
    return column if plain is None else column.cast(plain)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    with pa.OSFile(os.fsencode(path)) as opened, pq.ParquetFile(opened) as file:  # by bytes: a name may not be UTF-8
        yield file


def _batches(path: Path, columns: Columns) -> Iterator[pa.RecordBatch]:
    with one_sentence(f"corpus file {path} is damaged"), _opened(path) as file:
        yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=columns.names)


def _row_groups(file: int, metadata: pq.FileMetaData) -> Iterator[_RowGroup]:
    """The row groups of a file; CorpusError if their rows are not the file's."""
    first = 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        if not 0 <= rows <= metadata.num_rows - first:
            raise ValueError(f"row group {number} says that it holds {rows} of {metadata.num_rows} rows")
        yield _RowGroup(file, number, first, rows)
        first += rows
    if first != metadata.num_rows:
        raise ValueError(f"its row groups hold {first} of {metadata.num_rows} rows")
