"""The record of a chunk file, in its header or footer, and the one place that handles errors of its readers."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from extraction_assets.stores.sealed import MAKE_AGAIN, PLACEHOLDER, DamagedFileError, damaged, open_stored, verify
from extraction_assets.stores.sealed_json import parse_json

RECORD_FIELD = "extraction_assets"
"""The metadata field of a file that holds its record as JSON."""

Record = dict[str, Any]

_FIRST_PART = 64 << 10
"""Bytes that are read of a file at a URL, for its header or footer: nearly all have less."""
_LENGTH_BYTES = 8
"""Of a safetensors header's length."""
_LARGEST_HEADER = 100_000_000
"""Bytes: the limit of the safetensors package."""


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turns whatever a library raises for the bytes of a file into DamagedFileError; errors of the disk, of memory and
    missing files stay as they are."""
    try:
        yield
    except (DamagedFileError, FileNotFoundError, MemoryError):
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise damaged(path, error) from error  # Arrow has no other error for bytes that it cannot decode
    except Exception as error:  # the readers of Parquet and safetensors have no common error for hostile bytes
        raise damaged(path, error) from error


def record_json(record: Record) -> str:
    """A record as it is stored, with the place of the file's checksum."""
    return json.dumps({**record, "checksum": PLACEHOLDER}, sort_keys=True)


def read_record(path: Path) -> Record:
    """The record of a chunk file, without reading or checking the rest: for display, not as a guarantee.

    Raises DamagedFileError if the file has no record, FileNotFoundError if it does not exist.
    """
    with open_stored(path) as file:
        if _is_parquet(path):
            handle = file.fileno()
            return record_in_parts(
                path, os.fstat(handle).st_size, lambda start, stop: os.pread(handle, stop - start, start)
            )
    return _parsed(path, lambda: _safetensors_record(path))


def record_in_parts(path: Path, size: int, part: Callable[[int, int], bytes]) -> Record:
    """As ``read_record``, of a file with ``size`` bytes, of which ``part(start, stop)`` gives some: reads the header or
    the footer alone. Errors of ``part`` stay what they are."""
    if _is_parquet(path):
        footer = part(max(0, size - _FIRST_PART), size)
        length = int.from_bytes(footer[-8:-4], "little") + 8  # and the magic number behind it
        if len(footer) < length <= size:
            footer = part(size - length, size)
        return _parsed(path, lambda: _parquet_record(footer))
    header = part(0, min(size, _FIRST_PART))
    length = int.from_bytes(header[:_LENGTH_BYTES], "little") + _LENGTH_BYTES
    if len(header) < length <= min(size, _LARGEST_HEADER):
        header = part(0, length)
    return _parsed(path, lambda: _safetensors_header(header[:length], size))


def _parsed(path: Path, read: Callable[[], bytes]) -> Record:
    try:
        with refusing(path):
            text = read()
    except MemoryError as error:  # a hostile footer can request any amount
        raise damaged(path, f"it needs more memory than is available ({error})") from error
    record = parse_json(text, path, MAKE_AGAIN)
    if not isinstance(record, dict):
        raise damaged(path, "its record is no object")
    return record


def read_checked_record(path: Path, fingerprint: str) -> Record:
    """The record of a chunk file after checking every byte of it, and that it is of ``fingerprint``.

    Raises DamagedFileError, FileNotFoundError.
    """
    verify(path)
    return look_at(path, fingerprint)


def look_at(path: Path, fingerprint: str) -> Record:
    """As ``read_checked_record``, but looks at the header or footer alone: a file that is cut is found, one with other
    bytes in its middle is not."""
    record = read_record(path)
    expect_fingerprint(path, record, fingerprint)
    return record


def expect_fingerprint(path: Path, record: Record, fingerprint: str) -> None:
    """Raises DamagedFileError if a file's record is of another fingerprint than its name."""
    if record.get("fingerprint") != fingerprint:
        raise DamagedFileError(
            f"{path} was made from other inputs: it carries fingerprint {str(record.get('fingerprint'))[:100]}, "
            f"expected {fingerprint}; {MAKE_AGAIN}",
            path,
        )


def checks_of(record: Record) -> dict[str, bool]:
    """Check -> whether it has passed, from a table's record; empty if the record has no checks."""
    checks = record.get("checks")
    return {name: one for name, one in checks.items() if isinstance(one, bool)} if isinstance(checks, dict) else {}


def _is_parquet(path: Path) -> bool:
    return path.suffix in (".parquet", ".pq")


def _parquet_record(footer: bytes) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return bytes((pq.read_schema(pa.BufferReader(footer)).metadata or {})[RECORD_FIELD.encode()])


def _safetensors_record(path: Path) -> bytes:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:  # of either, for no tensor is read
        return str(file.metadata()[RECORD_FIELD]).encode()


def _safetensors_header(header: bytes, size: int) -> bytes:
    """The record in a header with its length, after checking that the tensors that it names fill the file."""
    found = json.loads(header[_LENGTH_BYTES:])
    metadata = found.pop("__metadata__")
    last = max((int(tensor["data_offsets"][1]) for tensor in found.values()), default=0)
    if len(header) + last != size:
        raise ValueError(f"it has {size} bytes, and its header names {len(header) + last}")
    return str(metadata[RECORD_FIELD]).encode()
