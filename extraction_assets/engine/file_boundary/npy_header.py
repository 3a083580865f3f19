"""The header of an npy file, read without Python's parser.

NumPy reads it with ``ast.literal_eval``, which in CPython before 3.11.9 and 3.12.3 may raise SystemError for a valid
header if several threads use it at once (gh-106905): a whole file would be judged damaged.
"""

import re
from typing import IO, Any, NamedTuple

import numpy as np

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
"""Of the header's length in bytes, little-endian, by version of the format."""
_LARGEST_BYTES = 10_000
"""As NumPy allows; the header of an array without field names has about 120 bytes."""

_VALUES = {
    "descr": r"(?P<quote>['\"])(?P<descr>[<>|=]?[A-Za-z]\d*)(?P=quote)",
    "fortran_order": r"(?P<fortran_order>True|False)",
    "shape": r"\((?P<shape>\s*(?:\d+\s*,\s*)*(?:\d+\s*)?)\)",
}
_FIELDS = {name: re.compile(rf"\s*(['\"]){name}\1\s*:\s*{value}\s*(?:,|(?=\}}))") for name, value in _VALUES.items()}


class NpyHeader(NamedTuple):
    """What an npy file says of its array."""

    shape: tuple[int, ...]
    is_fortran: bool
    """Whether the first axis varies fastest."""
    dtype: np.dtype[Any]


def read_npy_header(stream: IO[bytes]) -> NpyHeader:
    """The header at the beginning of a stream, which then stands at the array's first byte.

    Raises ValueError if there is no header, or one of another version or type than that of plain numbers.
    """
    magic = _read(stream, len(_MAGIC) + 2)
    version = (magic[-2], magic[-1])
    if not magic.startswith(_MAGIC):
        raise ValueError("it does not begin as an npy file")
    if version not in _LENGTH_BYTES:
        raise ValueError("its version of the npy format is unknown")
    length = int.from_bytes(_read(stream, _LENGTH_BYTES[version]), "little")
    if length > _LARGEST_BYTES:
        raise ValueError(f"its header has {length:,} bytes")
    return _parse(_read(stream, length).decode("latin-1"))


def _parse(text: str) -> NpyHeader:
    """The fields of a header, in any order: ``{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }``."""
    found, rest = dict[str, str](), text.strip().removeprefix("{")
    while rest.strip() != "}":
        matches = {name: match for name, field in _FIELDS.items() if (match := field.match(rest))}
        if not matches or found.keys() & matches:
            raise ValueError("its header is not that of an array of numbers")
        ((name, match),) = matches.items()
        found[name], rest = match[name], rest[match.end() :]
    if found.keys() != _FIELDS.keys():
        raise ValueError("its header does not name descr, fortran_order and shape")
    try:
        dtype = np.dtype(found["descr"])
    except TypeError as error:
        raise ValueError(f"its type {found['descr']} is unknown") from error
    shape = tuple(int(size) for size in found["shape"].split(",") if size.strip())
    return NpyHeader(shape, found["fortran_order"] == "True", dtype)


def _read(stream: IO[bytes], length: int) -> bytes:
    content = stream.read(length)
    if len(content) < length:
        raise ValueError("it ends within its header")
    return content
