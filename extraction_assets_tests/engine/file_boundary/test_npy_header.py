"""Headers of npy files: those that NumPy writes, other spellings of them, and what is no header."""

import ast
import io
from typing import Any

import numpy as np
import pytest

from extraction_assets.engine.file_boundary.npy_header import read_npy_header

PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"


def _stream(text: str, version: tuple[int, int] = (1, 0)) -> io.BytesIO:
    length = len(text).to_bytes(2 * version[0], "little")
    return io.BytesIO(b"\x93NUMPY" + bytes(version) + length + text.encode() + b"what follows")


@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 7), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i4", "|b1", "|u1"])
def test_what_numpy_writes_is_read(shape: tuple[int, ...], order: Any, dtype: str) -> None:
    array = np.zeros(shape, dtype, order=order)
    stream = io.BytesIO()
    np.save(stream, array)
    stream.seek(0)
    header = read_npy_header(stream)
    assert (header.shape, header.dtype) == (shape, array.dtype)
    assert header.is_fortran == (not array.flags.c_contiguous)
    assert stream.read() == array.tobytes("A")


@pytest.mark.parametrize("version", [(1, 0), (2, 0)], ids=str)
@pytest.mark.parametrize(
    "text",
    [PLAIN, PLAIN.replace("'", '"'), PLAIN.replace(", }", "}"), "{'shape':(3,4),'fortran_order':False,'descr':'<f4'}"],
)
def test_other_spellings_are_read(text: str, version: tuple[int, int]) -> None:
    stream = _stream(f"{text}   \n", version)
    assert read_npy_header(stream) == ((3, 4), False, np.dtype("<f4"))
    assert stream.read() == b"what follows"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "'''",
        PLAIN[:-1],
        PLAIN + PLAIN,
        PLAIN.replace("}", "'shape': (5,)}"),
        PLAIN.replace("3", "-3"),
        PLAIN.replace("3", "1 << 62"),
        PLAIN.replace("(3, 4)", "4"),
        PLAIN.replace("'<f4'", "[('a', '<f4')]"),
        PLAIN.replace("<f4", "<f3"),
        PLAIN.replace("3", "3" * 5_000),
        "(" * 9_000,
    ],
    ids=range(13),
)
def test_what_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(its|it|Exceeds)"):
        read_npy_header(_stream(text))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04 a zip file", b"\x93NUMPY\x01\x00\xff\x00{"])
def test_a_file_that_is_cut_or_another_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it (ends within|does not begin)"):
        read_npy_header(io.BytesIO(content))


def test_a_version_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        read_npy_header(_stream(PLAIN, (3, 0)))


def test_pythons_parser_has_no_part_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Used in two threads at once, that of CPython 3.11.7 fails now and then."""

    def fails(_text: str) -> None:
        raise SystemError("AST constructor recursion depth mismatch")

    monkeypatch.setattr(ast, "literal_eval", fails)
    assert read_npy_header(_stream(PLAIN)).shape == (3, 4)
