"""Tensors as the bytes of a safetensors file, without copying them.

The header is the one that the safetensors package writes, byte for byte; the data are the tensors' own memory, so that
a file of several hundred MB is written from where its parts lie.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

_NAMES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""In the order in which safetensors lays tensors out; those of one type by name."""

_ALIGNMENT = 8
"""Bytes: the data begins at a multiple of them."""


class _Placed(NamedTuple):
    """A tensor in a file, in pieces along its first dimension."""

    name: str
    parts: Sequence[Tensor]
    dtype: torch.dtype
    shape: list[int]

    @property
    def bytes(self) -> int:
        return sum(part.numel() for part in self.parts) * self.dtype.itemsize


def file_bytes(tensors: Mapping[str, Tensor | Sequence[Tensor]], metadata: Mapping[str, str]) -> list[memoryview]:
    """A safetensors file as consecutive pieces of memory, the header first; only tensors that are not contiguous are
    copied.

    A tensor may be given in pieces along its first dimension, all of one type on the CPU. Raises ValueError for a type
    that no file of ours has.
    """
    placed = sorted((_placed(name, tensor) for name, tensor in tensors.items()), key=_order)
    return [_header(placed, metadata), *(_memory(part) for one in placed for part in one.parts if part.numel())]


def _placed(name: str, tensor: Tensor | Sequence[Tensor]) -> _Placed:
    parts = [tensor] if isinstance(tensor, Tensor) else list(tensor)
    first, rows = parts[0], sum(len(part) for part in parts) if parts[0].dim() else 0
    if first.dtype not in _NAMES or any(part.dtype != first.dtype for part in parts):
        raise ValueError(f"tensor {name!r} cannot be stored: its type is {first.dtype}, or its pieces differ in type")
    return _Placed(name, parts, first.dtype, [rows, *first.shape[1:]] if first.dim() else [])


def _order(one: _Placed) -> tuple[int, str]:
    return list(_NAMES).index(one.dtype), one.name


def _header(placed: Sequence[_Placed], metadata: Mapping[str, str]) -> memoryview:
    """The length of the header in 8 bytes, and the header, filled up with spaces."""
    fields: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for one in placed:
        stop = start + one.bytes
        fields[one.name] = {"dtype": _NAMES[one.dtype], "shape": one.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return memoryview(len(text).to_bytes(8, "little") + text)


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU."""
    flat: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
