"""Tensors with a record in a sealed safetensors file."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from extraction_assets.stores.chunk_record import (
    RECORD_FIELD,
    Record,
    expect_fingerprint,
    read_record,
    record_json,
    refusing,
)
from extraction_assets.stores.sealed import verify, write_sealed


def write_safetensors(path: Path, tensors: dict[str, Tensor], record: Record) -> str:
    """The checksum of the file. One metadata entry alone: safetensors writes several in no fixed order."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    metadata = {RECORD_FIELD: record_json(record)}
    try:
        return write_sealed(path, lambda temporary: save_file(contiguous, temporary, metadata=metadata))
    except SafetensorError as error:  # an error of the disk, such as a full one
        raise OSError(f"{path} cannot be written: {error}") from error


def read_safetensors(path: Path, fingerprint: str) -> tuple[dict[str, Tensor], Record, str]:
    """The tensors of a file, its record and its checksum, after checking it."""
    checksum = verify(path)
    record = read_record(path)
    expect_fingerprint(path, record, fingerprint)
    with refusing(path):
        return load_file(path), record, checksum
