"""Parquet files of bounded memory: one row group after the other."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from extraction_assets.stores.sealed import naming

_DICTIONARY_BYTES = 2**25  # the texts of a large vocabulary; beyond it a text is written for every token
_NOT_REPEATED = ("values",)
"""Columns whose numbers hardly repeat: a dictionary of them takes twice the time, and no less room."""


MakeTable = Callable[[], pa.Table]
"""Gives a table, in the thread that writes it: while NumPy, Arrow and the compressor are at work there, another thread
reads what the next one is made of."""


def write_parquet(path: Path, schema: pa.Schema, tables: Iterable[MakeTable]) -> None:
    """Writes tables as the row groups of a file, whose ``schema`` readers see. A column may be a dictionary of the
    schema's type, in a list too."""
    with naming(path):
        writer = _Writer(path, schema)
        for table in tables:
            writer.append(table)
        writer.close()


class _Writer:
    """A Parquet writer that is opened with the first table, whose dictionaries readers need not know of."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._writer: pq.ParquetWriter | None = None

    def append(self, make: MakeTable) -> None:
        table = make()
        if self._writer is None:
            self._writer = self._opened(table.schema)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> None:
        if self._writer is None:
            self._writer = self._opened(self._schema)  # a file without rows has its columns all the same
        self._writer.close()

    def _opened(self, schema: pa.Schema) -> pq.ParquetWriter:
        leaves = _leaves(self._schema)
        return pq.ParquetWriter(
            self._path,
            schema,
            compression="zstd",
            use_dictionary=[name for name in leaves if name.split(".")[0] not in _NOT_REPEATED],
            write_statistics=[name for name in leaves if "." not in name],
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
            store_schema=False,
        )


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns that hold values, as Parquet calls them."""
    with pa.BufferOutputStream() as stream:
        pq.write_table(schema.empty_table(), stream, store_schema=False)
        found = pq.read_metadata(pa.BufferReader(stream.getvalue())).schema
    return [found.column(number).path for number in range(len(found))]
