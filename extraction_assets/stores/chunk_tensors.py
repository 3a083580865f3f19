"""Tensors with a record in a sealed safetensors file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from extraction_assets.stores.chunk_record import (
    RECORD_FIELD,
    Record,
    expect_fingerprint,
    read_record,
    record_json,
    refusing,
)
from extraction_assets.stores.safetensors_bytes import file_bytes
from extraction_assets.stores.sealed import verify, write_sealed_bytes


def write_safetensors(path: Path, tensors: Mapping[str, Tensor | Sequence[Tensor]], record: Record) -> str:
    """The checksum of the file. A tensor may be given in pieces along its first dimension, which are not joined first.

    One metadata entry alone: other readers and writers of safetensors keep several in no fixed order.
    """
    return write_sealed_bytes(path, file_bytes(tensors, {RECORD_FIELD: record_json(record)}))


def read_safetensors(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], Record, str]:
    """The tensors of a file, its record and its checksum, after checking it."""
    checksum = verify(path)
    record = read_record(path)
    expect_fingerprint(path, record, fingerprint)
    with refusing(path):
        return load_file(path), record, checksum
