"""Arrays of an npz file, after the sizes that it states are found to fit."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from extraction_assets.engine.file_boundary.checkpoint_file import CheckpointFile, shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FREE = 1 << 30
_RATIO = 20
"""A file may unpack to this many times its size, and always to ``_FREE`` bytes: weights hardly compress, and deflate
compresses zeros 1,000 times."""


def read_npz(
    file: CheckpointFile, names: list[str], device: torch.device | str, spellings: dict[str, str] | None = None
) -> dict[str, Tensor]:
    """The floating point arrays called ``names``, those of them that are there, in float32 on ``device``.

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
        return {name: _read(file, archive, member, name).to(device) for member, name in members.items()}


def _array_name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _read(file: CheckpointFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Tensor:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_array_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_array_header is None:
            raise file.error(f"holds {name} in an unknown version of the npy format")
        shape, is_fortran, dtype = read_array_header(stream)
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise file.error(f"holds {name} as {shown(str(dtype))}, expected floating point numbers")
        if any(type(one) is not int or one < 0 for one in shape):
            raise file.error(f"holds {name} of shape {shown(shape)}")
        expected = stream.tell() + math.prod(shape) * dtype.itemsize
        if expected != member.file_size:
            raise file.error(
                f"holds {name} of shape {shown(shape)} in {member.file_size:,} bytes, expected {expected:,}"
            )
        content = stream.read()  # reads to the end, where the checksum is compared
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
    import torch

    return torch.from_numpy(np.array(array, np.float32, order="C"))
