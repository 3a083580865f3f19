"""Small JSON files with checksums of others: sealed, so that every byte is covered, and read by one strict reader."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from extraction_assets.stores.sealed import PLACEHOLDER, damaged, open_stored, verify_bytes, write_sealed

LARGEST_BYTES = 16 << 20
"""Largest size of a sealed JSON file in bytes; ours have about one thousand."""

_CHECKSUM = "checksum"


class SealedJson(NamedTuple):
    """What a sealed JSON file holds."""

    value: dict[str, Any]
    sealed: bool
    """False for a file of an earlier version, which has no checksum: its values have to be recomputed."""


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """An object as JSON with a checksum inside, durable and whole."""
    text = json.dumps({**value, _CHECKSUM: PLACEHOLDER}, indent=1, sort_keys=True)
    write_sealed(path, lambda temporary: temporary.write_bytes(text.encode()))


def read_sealed_json(path: Path, advice: str, earlier: Collection[str]) -> SealedJson:
    """The object in a sealed file, after checking every byte.

    A file without a checksum comes from an earlier version if it has no other fields than ``earlier``, and the bytes
    that such a version wrote. Raises DamagedFileError with ``advice`` for anything else, FileNotFoundError if the file
    does not exist.
    """
    with open_stored(path, advice) as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise damaged(path, f"it is larger than {LARGEST_BYTES} bytes", advice)
    value = parse_json(data, path, advice)
    if not isinstance(value, dict):
        raise damaged(path, f"it holds a {type(value).__name__}, not an object", advice)
    if _CHECKSUM in value:
        verify_bytes(data, path, advice)
        return SealedJson({name: one for name, one in value.items() if name != _CHECKSUM}, True)
    if not set(value) <= set(earlier) or json.dumps(value, indent=1).encode() != data:
        raise damaged(path, "it has no checksum and not the form of an earlier version", advice)
    return SealedJson(value, False)


def parse_json(data: bytes, path: Path, advice: str) -> Any:
    """The value in bytes of JSON. Raises DamagedFileError if they cannot be read."""
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise damaged(path, f"it is no JSON that can be read ({error or type(error).__name__})", advice) from error


def check_fields(value: Mapping[str, Any], fields: Mapping[str, Any], path: Path, advice: str) -> None:
    """Raises DamagedFileError if a field is missing or not of its type; a bool is not taken for an int."""
    for name, kind in fields.items():
        if name not in value:
            raise damaged(path, f"it has no {name!r}", advice)
        if not isinstance(value[name], kind) or (isinstance(value[name], bool) and kind is not bool):
            raise damaged(path, f"its {name!r} is a {type(value[name]).__name__}", advice)
