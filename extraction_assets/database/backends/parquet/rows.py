"""Rows of Arrow as Parquet files: JSON for lists, as every database here has them, and small row groups.

A row group has about a MiB, and its rows are in the order of the table's key, so that whoever wants one feature reads
one of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extraction_assets.database.backends.arrow_lists import json_column

_GROUP_BYTES = 1 << 20  # less, and DuckDB looks at the bounds of more of them, 30 us each; more, and it reads more
_GROUP_ROWS = 65_536
_TYPES = {
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "JSON": pa.string(),
    "TIMESTAMP": pa.timestamp("us"),
}


def write_rows(path: Path, columns: Mapping[str, str], parts: Iterable[pa.Table]) -> int:
    """Writes rows to a file, a part at a time; returns how many. Without any there is no file.

    ``columns`` are all columns of the table with DuckDB's types; one that a part lacks is NULL.
    """
    remaining = iter(parts)
    first = next((part for part in remaining if len(part)), None)
    if first is None:
        return 0
    schema, count = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()]), 0
    sought = [name for name, kind in columns.items() if kind != "JSON"]  # a list is no bound that anybody looks for
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, write_statistics=sought) as writer:
        for rows in _joined(_fitted(part, schema) for part in chain([first], remaining)):
            count += len(rows)
            writer.write_table(rows, row_group_size=_group_rows(rows))
    return count


def part_of(column: str, parts: Iterable[pa.Table]) -> tuple[int, Iterable[pa.Table]] | None:
    """The one value that a column has in all rows, and the rows; None if there are none. Raises ValueError, there or
    while they are read, if it has several."""
    remaining = iter(parts)
    first = next((part for part in remaining if len(part)), None)
    if first is None:
        return None
    value = int(first[column][0].as_py())
    return value, (_of_one(column, value, part) for part in chain([first], remaining))


def _joined(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in parts that have a row group at least, the last one aside."""
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(part)
        if sum(one.nbytes for one in waiting) >= _GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if any(map(len, waiting)):
        yield pa.concat_tables(waiting)


def _of_one(column: str, value: int, part: pa.Table) -> pa.Table:
    if len(part) and not pc.all(pc.equal(part[column], value)).as_py():
        raise ValueError(f"rows of several {column} are written at once")
    return part


def _fitted(part: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        _cast(part[field.name].combine_chunks(), field.type)
        if field.name in part.column_names
        else pa.nulls(len(part), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([_one_cast(chunk, kind) for chunk in chunks], kind)


def _one_cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    listed = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    return (json_column(column) if listed else column).cast(kind)


def _group_rows(rows: pa.Table) -> int:
    return max(1, min(_GROUP_ROWS, len(rows) * _GROUP_BYTES // max(1, rows.nbytes)))
