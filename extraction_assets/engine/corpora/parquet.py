"""Parquet files as a corpus: one document a row, read by row group."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from extraction_assets.engine.corpora.columns import Columns, table_documents
from extraction_assets.engine.corpora.documents import CorpusError, Document, document_order

_BATCH_ROWS = 1024
_SHUFFLED_ROWS = 16_384
"""Documents held at once where they are shuffled: each row group is read again for each so many."""


class ParquetFiles:
    """Parquet files by name. A document's id is by default ``<file>:<row>``, rows counted from 0."""

    def __init__(
        self, names: Sequence[str], files: Sequence[Path], columns: Columns, shuffle_seed: int | None = None
    ) -> None:
        self.files, self._names, self._columns, self._seed = files, names, columns, shuffle_seed
        for file in files:
            with _opened(file) as parquet:
                columns.check(parquet.schema_arrow.names, str(file))

    def documents(self) -> Iterator[Document]:
        if self._seed is not None:
            yield from self._shuffled(self._seed)
            return
        for name, path in zip(self._names, self.files, strict=True):
            first = 0
            with _opened(path) as file:
                for batch in _batches(file, self._columns, path):
                    table = pa.Table.from_batches([batch])
                    rows = range(first, first + len(table))
                    yield from table_documents(table, self._columns, rows, f"{name}:", str(path))
                    first += len(table)

    def _shuffled(self, seed: int) -> Iterator[Document]:
        """Documents in groups of the new order; each group's come from whatever row groups they lie in."""
        groups = [group for number, path in enumerate(self.files) for group in _row_groups(number, path)]
        firsts = np.cumsum([0, *(rows for _, _, _, rows in groups)])
        order = document_order(int(firsts[-1]), seed)
        for start in range(0, len(order), _SHUFFLED_ROWS):
            wanted = order[start : start + _SHUFFLED_ROWS]
            owners = np.searchsorted(firsts, wanted, side="right") - 1
            found: dict[int, Document] = {}
            for owner in np.unique(owners).tolist():
                slots = np.flatnonzero(owners == owner)
                own = self._rows(groups[owner], wanted[slots] - firsts[owner])
                found.update(zip(slots.tolist(), own, strict=True))
            yield from (found[slot] for slot in range(len(wanted)))

    def _rows(self, group: tuple[int, int, int, int], rows: np.ndarray) -> Iterator[Document]:
        """Documents at some rows of a row group."""
        file_number, group_number, first_row, _ = group
        path = self.files[file_number]
        with _opened(path) as file:
            try:
                table = file.read_row_group(group_number, columns=self._columns.names).take(pa.array(rows))
            except (pa.ArrowException, OSError) as error:
                raise CorpusError(f"corpus file {path} is damaged ({error})") from error
        name = self._names[file_number]
        yield from table_documents(table, self._columns, (rows + first_row).tolist(), f"{name}:", str(path))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise CorpusError(f"corpus file {path} is not a Parquet file, or a damaged one ({error})") from error


def _batches(file: pq.ParquetFile, columns: Columns, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=columns.names)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"corpus file {path} is damaged ({error})") from error


def _row_groups(file_number: int, path: Path) -> Iterator[tuple[int, int, int, int]]:
    """(file number, group number, first row, rows) of each row group."""
    first = 0
    with _opened(path) as file:
        for number in range(file.num_row_groups):
            rows = file.metadata.row_group(number).num_rows
            yield file_number, number, first, rows
            first += rows
