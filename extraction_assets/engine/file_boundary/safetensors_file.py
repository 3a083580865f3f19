"""Tensors of a safetensors file, after its header is found to fit the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from extraction_assets.engine.file_boundary.checkpoint_file import CheckpointFile, shown
from extraction_assets.engine.file_boundary.json_object import parse_json_object
from extraction_assets.engine.file_boundary.stored_tensors import (
    DecoderPart,
    StoredTensors,
    copy_to,
    is_encoder,
    room_for,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MOST_HEADER = 100_000_000
"""As in the safetensors library."""
_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""Types with plain numbers; all others are packed, scaled or not weights."""

_OTHERS = frozenset({"BOOL", "U8", "I8", "I16", "I32", "I64", "F8_E4M3", "F8_E5M2"})

_TORCH = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


class StoredTensor(NamedTuple):
    """What a header says of one tensor."""

    file: str
    dtype: str
    """As safetensors writes it: ``F32``, ``BF16``, ``I8``, …"""
    shape: tuple[int, ...]


def read_header(file: CheckpointFile) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, without their numbers.

    Raises CheckpointError if the header cannot be read, or if what it says does not fill the file exactly.
    """
    return {name: stored for name, (stored, _) in _places(file).items()}


def _places(file: CheckpointFile) -> dict[str, tuple[StoredTensor, int]]:
    """As ``read_header``, with where in the file the numbers of each begin."""
    size = file.size()
    with file.reading(), file.path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER):
            raise file.error(
                f"is not a whole safetensors file: its header is to have {length:,} bytes, the file has {size:,}; "
                "is it cut short?"
            )
        header = parse_json_object(file, stream.read(length), "holds a header that ")
    header.pop("__metadata__", None)
    spans = {name: _span(file, name, entry) for name, entry in header.items()}
    end = 0
    for name, (_, first, last) in sorted(spans.items(), key=lambda item: item[1][1:]):
        if first != end:
            raise file.error(f"is not a valid safetensors file: the bytes of {shown(name)} do not follow the others")
        end = last
    if 8 + length + end != size:
        raise file.error(
            f"is not a whole safetensors file: its header describes {8 + length + end:,} bytes, the file has {size:,}; "
            "is it cut short?"
        )
    return {name: (stored, 8 + length + first) for name, (stored, first, _) in spans.items()}


def _span(file: CheckpointFile, name: str, entry: Any) -> tuple[StoredTensor, int, int]:
    """One entry of the header, and where its bytes begin and end."""
    found: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    dtype: Any = found.get("dtype")
    shape: Any = found.get("shape")
    offsets: Any = found.get("data_offsets")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or not isinstance(dtype, str):
        raise file.error(f"is not a valid safetensors file: its header says {shown(entry)} of {shown(name)}")
    if dtype not in _BITS:
        raise file.error(f"holds {shown(name)} in an unknown type, {shown(dtype)}")
    bits, (first, last) = math.prod(shape) * _BITS[dtype], offsets
    if bits % 8 or last - first != bits // 8:
        raise file.error(
            f"is not a valid safetensors file: {shown(name)} of type {dtype} and shape {shown(tuple(shape))} cannot "
            f"lie in {last - first:,} bytes"
        )
    return StoredTensor(file.name, dtype, tuple(shape)), first, last


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 1 << 62 for one in value)


def read_safetensors(file: CheckpointFile, device: torch.device | str = "cpu") -> StoredTensors:
    """The tensors of ``file``, to be read to ``device``: ``FLOATS`` in float32, others as they are stored.

    Those unknown to PyTorch are left out. Raises CheckpointError as ``read_header``.
    """
    header = read_header(file)
    known = [name for name, stored in header.items() if stored.dtype in FLOATS or stored.dtype in _OTHERS]
    return StoredTensors({name: partial(_read, file, name, device, header[name]) for name in known})


def read_decoder_part(file: CheckpointFile, device: torch.device | str, part: DecoderPart) -> StoredTensors:
    """As ``read_safetensors``, but what a part of the features has of each tensor."""
    readers = read_safetensors(file, device)
    sliced = {
        name: partial(_read_part, file, name, device, stored, begin, part)
        for name, (stored, begin) in _places(file).items()
        if stored.dtype in FLOATS and part.of in stored.shape
    }
    return StoredTensors({name: sliced.get(name) or partial(readers.__getitem__, name) for name in readers})


def _read_part(
    file: CheckpointFile, name: str, device: torch.device | str, stored: StoredTensor, begin: int, part: DecoderPart
) -> Tensor:
    """The entries of a part along the axis of the features, of a tensor whose numbers begin at byte ``begin``."""
    axis = stored.shape.index(part.of)
    shape = (*stored.shape[:axis], part.stop - part.start, *stored.shape[axis + 1 :])
    room = room_for(name, shape, None, device, stored.shape)
    if is_encoder(name) and len(shape) == 2:
        return room.zero_()
    return copy_to(room, _numbers(file, stored, begin, part, axis).view(shape))


def _numbers(file: CheckpointFile, stored: StoredTensor, begin: int, part: DecoderPart, axis: int) -> Tensor:
    """The numbers of a part as they are stored, one behind the other: read, for the pages of a file that is mapped
    would count as memory until it is closed."""
    import torch

    entry = math.prod(stored.shape[axis + 1 :]) * _BITS[stored.dtype] // 8
    lines, size = math.prod(stored.shape[:axis]), (part.stop - part.start) * entry
    content = bytearray(lines * size)
    with file.reading(), file.path.open("rb", buffering=0) as stream:
        for line in range(lines):
            stream.seek(begin + (line * part.of + part.start) * entry)
            if stream.readinto(memoryview(content)[line * size : (line + 1) * size]) != size:
                raise file.error("ended while it was read: was it replaced?")
    return torch.frombuffer(content, dtype=getattr(torch, _TORCH[stored.dtype]))


def _read(file: CheckpointFile, name: str, device: torch.device | str, stored: StoredTensor) -> Tensor:
    from safetensors import safe_open

    with file.reading(), safe_open(file.path, framework="pt") as stream:
        tensor = stream.get_tensor(name)  # numbers stay in the file until they are copied
        dtype = None if stored.dtype in FLOATS else tensor.dtype
        return copy_to(room_for(name, tuple(tensor.shape), dtype, device), tensor)
