"""Bulk insert into PostgreSQL: binary COPY on the transaction's own connection, its bytes made by Arrow and NumPy.

Binary, because no number passes through text: every float arrives bit for bit, and making the bytes takes a twentieth
of the load (as text a quarter of it). ADBC is no faster, and has a connection of its own, where a load must be in the
one transaction of its merge. The bytes of a batch are made while the server takes those of the one before. Measured
rates stand in benchmarks/RESULTS.md.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from extraction_assets.database.backends.arrow_lists import flat_lists, json_numbers
from extraction_assets.database.backends.prefetch import in_order

_BATCH_ROWS = 50_000
_READ_BYTES = 2**16  # what the driver asks for at once; its default of 8 KB costs a tenth of the rate

_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # then 4 bytes of flags and 4 of the header extension's length
_TRAILER = b"\xff\xff"  # a row of -1 fields
_NULL = b"\xff\xff\xff\xff"  # a field of -1 bytes
_BYTES = pa.large_binary()

# Object ids of element types, from PostgreSQL's pg_type.dat; they never change.
_INT4_OID, _TEXT_OID, _FLOAT8_OID = 23, 25, 701


def copy_rows(connection: sa.Connection, table: sa.Table, parts: Iterable[pa.Table]) -> None:
    """Insert rows inside the open transaction."""
    remaining = iter(parts)
    first = next(remaining, None)
    if first is None:
        return
    statement = f"COPY {table.name} ({', '.join(first.column_names)}) FROM STDIN WITH (FORMAT binary)"
    types = [str(table.c[name].type.compile(connection.dialect)) for name in first.column_names]
    driver = connection.connection.driver_connection
    assert driver is not None, "the transaction is open"
    stream = _Stream(_pieces(chain([first], remaining), types))
    try:
        with driver.cursor() as cursor:
            cursor.copy_expert(statement, stream, _READ_BYTES)
    except Exception:
        if stream.error is not None:  # the driver calls it an error of the server
            raise stream.error from None
        raise


def _pieces(parts: Iterable[pa.Table], types: list[str]) -> Iterator[bytes | memoryview]:
    """The bytes of a binary COPY, some ten MB at once."""
    batches = (batch for rows in parts for batch in rows.to_batches(max_chunksize=_BATCH_ROWS))
    yield _SIGNATURE
    yield from in_order(partial(_rows, batch, types) for batch in batches)
    yield _TRAILER


def _rows(batch: pa.RecordBatch, types: list[str]) -> memoryview:
    count = pa.scalar(len(types).to_bytes(2, "big"), _BYTES)
    fields = [part for column, name in zip(batch.columns, types, strict=True) for part in _FIELDS[name](column)]
    return _content(pc.binary_join_element_wise(count, *fields, pa.scalar(b"", _BYTES)))


class _Stream:
    """Pieces of bytes as the file that the driver reads from."""

    def __init__(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._pieces = iter(pieces)
        self._left = memoryview(b"")
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        if not len(self._left):
            try:
                self._left = memoryview(next(self._pieces, b""))
            except Exception as error:
                self.error = error
                raise
        taken, self._left = self._left[:size], self._left[size:]
        return bytes(taken)


# A field is its length in bytes as a big-endian int32, then its bytes. The functions below give the parts of one
# column's fields as Arrow arrays of binary values, one a row, to be joined row by row.


def _numbers(kind: str) -> Callable[[pa.Array], list[pa.Array]]:
    def fields(column: pa.Array) -> list[pa.Array]:
        framed = _fixed(_framed(column.fill_null(0), kind))
        return [pc.if_else(column.is_null(), pa.scalar(_NULL, _BYTES), framed) if column.null_count else framed]

    return fields


def _texts(column: pa.Array) -> list[pa.Array]:
    assert not column.null_count, "text columns are NOT NULL"
    content = column.cast(_BYTES)
    return [_fixed(pc.binary_length(content).to_numpy(zero_copy_only=False).astype(">i4")), content]


def _json(column: pa.Array) -> list[pa.Array]:
    if column.null_count:
        assert column.null_count == len(column), "a statistic is known of all features or of none"
        return [pa.array([_NULL] * len(column), _BYTES)]
    return _texts(column if pa.types.is_string(column.type) else json_numbers(column))


def _jsonb(column: pa.Array) -> list[pa.Array]:
    """JSON texts, after the number of the format."""
    return _texts(pc.binary_join_element_wise(pa.scalar(b"\x01", _BYTES), column.cast(_BYTES), pa.scalar(b"", _BYTES)))


def _number_lists(kind: str, oid: int) -> Callable[[pa.Array], list[pa.Array]]:
    def fields(column: pa.Array) -> list[pa.Array]:
        offsets, values = flat_lists(column)
        elements = _framed(values, kind)
        ends = offsets * elements.dtype.itemsize
        return [_array_heads(offsets, ends, oid), _slices(ends, pa.py_buffer(elements))]

    return fields


def _text_lists(column: pa.Array) -> list[pa.Array]:
    offsets, values = flat_lists(column)
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    framed = pc.binary_join_element_wise(*_texts(coded.dictionary), pa.scalar(b"", _BYTES))  # each text once
    elements = framed.take(coded.indices)
    ends = _offsets(elements)[offsets]
    return [_array_heads(offsets, ends, _TEXT_OID), _slices(ends - ends[0], pa.py_buffer(_content(elements)))]


def _array_heads(offsets: np.ndarray, ends: np.ndarray, oid: int) -> pa.Array:
    """Field length and header of one-dimensional arrays of which none holds NULL."""
    heads = np.zeros(len(offsets) - 1, dtype=[(name, ">i4") for name in ("n", "ndim", "nulls", "oid", "dim", "first")])
    heads["n"] = 20 + np.diff(ends)
    heads["ndim"], heads["oid"], heads["dim"], heads["first"] = 1, oid, np.diff(offsets), 1
    return _fixed(heads)


def _framed(column: pa.Array, kind: str) -> np.ndarray:
    """Numbers as the server reads them, each after its length; raises where one does not fit."""
    wanted = np.dtype(kind)
    fitting = column.cast(pa.from_numpy_dtype(wanted.newbyteorder("=")))
    framed = np.empty(len(column), dtype=[("n", ">i4"), ("value", kind)])
    framed["n"] = wanted.itemsize
    framed["value"] = fitting.to_numpy(zero_copy_only=False)
    return framed


def _fixed(values: np.ndarray) -> pa.Array:
    """A NumPy array as binary values, one an element."""
    return _slices(np.arange(len(values) + 1, dtype=np.int64) * values.dtype.itemsize, pa.py_buffer(values))


def _slices(ends: np.ndarray, buffer: pa.Buffer) -> pa.Array:
    return pa.Array.from_buffers(_BYTES, len(ends) - 1, [None, pa.py_buffer(np.ascontiguousarray(ends)), buffer])


def _offsets(array: pa.Array) -> np.ndarray:
    return np.frombuffer(array.buffers()[1], dtype=np.int64)[array.offset : array.offset + len(array) + 1]


def _content(array: pa.Array) -> memoryview:
    """The bytes of all values, one after the other."""
    offsets, buffer = _offsets(array), array.buffers()[2]
    return memoryview(b"" if buffer is None else buffer)[offsets[0] : offsets[-1]]


_FIELDS: dict[str, Callable[[pa.Array], list[pa.Array]]] = {
    "INTEGER": _numbers(">i4"),
    "BIGINT": _numbers(">i8"),
    "DOUBLE PRECISION": _numbers(">f8"),
    "TEXT": _texts,
    "SMALLINT": _numbers(">i2"),
    "JSON": _json,
    "JSONB": _jsonb,
    "INTEGER[]": _number_lists(">i4", _INT4_OID),
    "DOUBLE PRECISION[]": _number_lists(">f8", _FLOAT8_OID),
    "TEXT[]": _text_lists,
}
