"""Lists of Arrow as databases take them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def flat_lists(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Offsets from 0 [rows + 1] and values of a list array that may be a slice of a longer one."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], column.values[int(offsets[0]) : int(offsets[-1])]


def json_column(column: pa.Array) -> pa.Array:
    """Lists of numbers or of texts as JSON texts."""
    kind = column.type.value_type
    return json_numbers(column) if pa.types.is_integer(kind) or pa.types.is_floating(kind) else _json_texts(column)


def json_numbers(column: pa.Array) -> pa.Array:
    """Lists of numbers as JSON texts. Numbers as text are JSON already; a double's shortest text reads back as the
    same double."""
    offsets, values = flat_lists(column)  # to cast a slice of a list array would cast all of it
    return json_lists(pa.LargeListArray.from_arrays(offsets, values.cast(pa.string())))


def json_lists(texts: pa.Array) -> pa.Array:
    """Lists of JSON texts as JSON texts."""
    return pc.binary_join_element_wise("[", pc.binary_join(texts, ","), "]", "")


def _json_texts(column: pa.Array) -> pa.Array:
    """Lists of texts as JSON; every different text is made into JSON once."""
    offsets, values = flat_lists(column)
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    encoded = pa.array([json.dumps(text, ensure_ascii=False) for text in coded.dictionary.to_pylist()], pa.string())
    return json_lists(pa.LargeListArray.from_arrays(offsets, encoded.take(coded.indices)))
