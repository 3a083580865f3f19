"""Arrays of an npz file, after the sizes that it states are found to fit."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from extraction_assets.engine.file_boundary.checkpoint_file import CheckpointFile, shown
from extraction_assets.engine.file_boundary.npy_header import NpyHeader, read_npy_header
from extraction_assets.engine.file_boundary.stored_tensors import StoredTensors, room_for

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_BLOCK = 8 << 20
"""Bytes of an array that are on their way at once."""
_FREE = 1 << 30
_RATIO = 20
"""A file may unpack to this many times its size, and always to ``_FREE`` bytes: weights hardly compress, and deflate
compresses zeros 1,000 times."""


def read_npz(
    file: CheckpointFile, names: list[str], device: torch.device | str, spellings: dict[str, str] | None = None
) -> StoredTensors:
    """The floating point arrays called ``names``, those of them that are there, to be read to ``device`` in float32.

    ``spellings`` are other names that stand for one of them. Raises CheckpointError if the file is no npz file, is
    cut, names an array twice, unpacks to far more than its size, or holds one of these in another type.
    """
    size = file.size()
    spellings = {name: name for name in names} | (spellings or {})
    with file.reading(), file.path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        members = {one: spellings[name] for one in archive.infolist() if (name := _array_name(one)) in spellings}
        twice = [name for name, count in Counter(members.values()).items() if count > 1]
        if twice:
            raise file.error(f"holds {shown(twice[0])} more than once")
        unpacked = sum(one.file_size for one in members)
        if unpacked > max(_FREE, _RATIO * size):
            raise file.error(f"has {size:,} bytes and would unpack to {unpacked:,}: it is not read")
    return StoredTensors({name: partial(_read, file, member, name, device) for member, name in members.items()})


def read_npz_shapes(file: CheckpointFile, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The shapes of the floating point arrays called ``names``, those that are there, without their numbers.

    Raises CheckpointError if the file is no npz file, or holds one of these in another type.
    """
    with file.reading(), file.path.open("rb") as whole, zipfile.ZipFile(whole) as archive:
        members = {name: one for one in archive.infolist() if (name := _array_name(one)) in names}
        shapes = {}
        for name, member in members.items():
            with archive.open(member) as stream:
                shapes[name] = _read_header(file, stream, name)[0]
    return shapes


def _array_name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _read(file: CheckpointFile, member: zipfile.ZipInfo, name: str, device: torch.device | str) -> Tensor:
    """One array, block by block to the end of its member, where the checksum is compared."""
    with (
        file.reading(),
        file.path.open("rb") as whole,
        zipfile.ZipFile(whole) as archive,
        archive.open(member) as stream,
    ):
        shape, is_fortran, dtype = _read_header(file, stream, name)
        expected = stream.tell() + math.prod(shape) * dtype.itemsize
        if expected != member.file_size:
            raise file.error(
                f"holds {name} of shape {shown(shape)} in {member.file_size:,} bytes, expected {expected:,}"
            )
        room = room_for(name, shape, None, device)
        _fill(room.permute(*reversed(range(len(shape)))) if is_fortran else room, stream, dtype)
        if stream.read(1):
            raise file.error(f"holds more of {name} than its header says")
    return room


def _read_header(file: CheckpointFile, stream: IO[bytes], name: str) -> NpyHeader:
    try:
        header = read_npy_header(stream)
    except ValueError as error:
        raise file.error(f"holds {name} as no npy array that can be read: {error}") from error
    if header.dtype.kind != "f" or header.dtype.itemsize > 8:
        raise file.error(f"holds {name} as {shown(str(header.dtype))}, expected floating point numbers")
    return header


def _fill(room: Tensor, stream: IO[bytes], dtype: np.dtype[Any]) -> None:
    """The numbers of a stream into ``room``, whose order of rows is that of the stream."""
    import torch

    lines = room.view(1) if room.dim() == 0 else room
    row = math.prod(lines.shape[1:]) * dtype.itemsize
    rows = max(1, _BLOCK // max(1, row))
    for start in range(0, len(lines), rows):
        block = lines[start : start + rows]
        content = stream.read(len(block) * row)
        array = np.frombuffer(content, dtype).astype(np.float32, copy=dtype == np.float32).reshape(tuple(block.shape))
        block.copy_(torch.from_numpy(array))
