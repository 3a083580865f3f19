"""Lists of examples and of tokens as columns, from the JSON texts that the database holds.

A Python object for each of their elements would take most of the time of an export to Parquet. Arrow reads the tokens.
Examples, which are no table for it, have one string each, between two quotation marks that no backslash escapes;
outside of strings are numbers, brackets, commas and space: the bytes of many texts are looked at together.
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json

_QUOTE, _CLOSING = ord('"'), ord("]")
_IS_IN_NUMBERS = bytes(sign in b"0123456789+-.eE" for sign in range(256))


_STRINGS = pa.list_(pa.string())


class DamagedListError(ValueError):
    """A text that is no such list."""


class ExampleLists(NamedTuple):
    """Lists of examples [leading whole numbers…, max_activation, max_token, [position…], [activation…]]."""

    counts: np.ndarray
    """int64 [texts]: examples of each."""
    leading: np.ndarray
    """int64 [E, numbers before the maximum]"""
    max_activation: np.ndarray
    """float32 [E]"""
    max_token: pa.StringArray
    """[E]"""
    firing_offsets: np.ndarray
    """int64 [E + 1]: where the firings of each begin."""
    positions: np.ndarray
    """int64 [M]"""
    activations: np.ndarray
    """float32 [M]: the nearest to the digits."""


def string_lists(texts: Sequence[str]) -> pa.ListArray:
    """From the text of a list of strings each. Raises DamagedListError."""
    if not texts:
        return pa.array([], _STRINGS)
    data = "".join(f'{{"list":{text}}}\n' for text in texts).encode()
    fields = pa.schema({"list": _STRINGS})
    try:
        found = pyarrow.json.read_json(
            pa.BufferReader(data),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pyarrow.json.ParseOptions(explicit_schema=fields, unexpected_field_behavior="error"),
        )
    except pa.ArrowInvalid as error:
        raise DamagedListError(str(error)) from error
    listed = pa.concat_arrays(found["list"].chunks)
    _require(len(listed) == len(texts) and not listed.null_count and not listed.values.null_count)
    return listed


def example_lists(texts: Sequence[str], leading: int) -> ExampleLists:
    """From the text of a list of examples each, which have ``leading`` whole numbers before their maximum. Raises
    DamagedListError.

    Peak memory some 20 bytes for each of their characters.
    """
    found = _Text(texts)
    numbers = found.numbers()
    begun = numbers.before_strings - (leading + 1)
    lengths = np.diff(np.append(begun, len(numbers.digits)))
    firings, odd = np.divmod(lengths - (leading + 1), 2)
    _require(begun[:1].sum() == 0 and not odd.any() and (firings > 0).all())
    offsets = np.zeros(len(firings) + 1, dtype=np.int64)
    np.cumsum(firings, out=offsets[1:])
    first = begun + leading + 1 - offsets[:-1]
    positions = np.repeat(first, firings) + np.arange(offsets[-1])
    _require((found.bytes[numbers.ends[positions[offsets[1:] - 1]]] == _CLOSING).all())  # both lists are as long
    return ExampleLists(
        found.strings_of_each(),
        _cast(numbers.digits, (begun[:, None] + np.arange(leading)).ravel(), pa.int64()).reshape(-1, leading),
        _cast(numbers.digits, begun + leading, pa.float32()),
        found.strings(),
        offsets,
        _cast(numbers.digits, positions, pa.int64()),
        _cast(numbers.digits, positions + np.repeat(firings, firings), pa.float32()),
    )


class _Text:
    """The bytes of several texts, one behind the other, and where strings begin and end in them."""

    def __init__(self, texts: Iterable[str]) -> None:
        parts = [text.encode() + b"\n" for text in texts]
        self._data = b"".join(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self.bytes = np.frombuffer(self._data, np.uint8)
        self._escaped = b"\\" in self._data
        unescaped = _without_escapes(self._data) if self._escaped else self._data
        quotes = np.flatnonzero(np.frombuffer(unescaped, np.uint8) == _QUOTE)
        _require(len(quotes) % 2 == 0)
        self._opening, self._closing = quotes[::2], quotes[1::2]
        edges = np.zeros(len(self.bytes), dtype=np.int8)
        edges[self._opening], edges[self._closing] = 1, -1
        self.is_string: np.ndarray = np.cumsum(edges, dtype=np.int8).view(bool)
        """bool [bytes]: from a string's first quotation mark to before its last one."""

    def strings_of_each(self) -> np.ndarray:
        """int64 [texts]"""
        return np.diff(np.searchsorted(self._opening, self._ends), prepend=0)

    def strings(self) -> pa.StringArray:
        """All strings."""
        inside = self.is_string.copy()
        inside[self._opening] = False
        found = _string_array(self.bytes[inside], self._closing - self._opening - 1)
        return _unescaped(found) if self._escaped else found

    def numbers(self) -> "_Numbers":
        """What is outside of strings."""
        inside = np.frombuffer(self._data.translate(_IS_IN_NUMBERS), bool) & ~self.is_string
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1  # a text begins and ends with a bracket
        starts, ends = edges[::2], edges[1::2]
        return _Numbers(_string_array(self.bytes[inside], ends - starts), ends, np.searchsorted(starts, self._opening))


class _Numbers(NamedTuple):
    digits: pa.StringArray
    """[numbers]"""
    ends: np.ndarray
    """int64 [numbers]: the byte behind each."""
    before_strings: np.ndarray
    """int64 [strings]: how many come before each string."""


def _without_escapes(data: bytes) -> bytes:
    """Of the same length, in which no quotation mark is escaped."""
    return data.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _string_array(data: np.ndarray, lengths: np.ndarray) -> pa.StringArray:
    """Strings from their bytes, one behind the other."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(data))


def _unescaped(strings: pa.StringArray) -> pa.StringArray:
    """What JSON strings mean; there are fewer different ones than strings."""
    found = strings.dictionary_encode()
    texts = [json.loads(f'"{text}"') if "\\" in text else text for text in found.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(found.indices)


def _cast(digits: pa.StringArray, chosen: np.ndarray, kind: pa.DataType) -> np.ndarray:
    """Some of the numbers."""
    try:
        return digits.take(pa.array(chosen)).cast(kind).to_numpy()
    except pa.ArrowInvalid as error:
        raise DamagedListError from error


def _require(holds: bool | np.bool_) -> None:
    if not holds:
        raise DamagedListError
