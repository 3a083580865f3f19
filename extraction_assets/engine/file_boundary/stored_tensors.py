"""The tensors of a checkpoint's file, read one at a time to where they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_BLOCK = 8 << 20
"""Bytes of a tensor that are on their way at once."""


class DecoderPart(NamedTuple):
    """Features ``start`` to ``stop - 1`` of an SAE that has ``of`` of them: what is read of a tensor along its axis of
    that length, if it has one. An encoder's matrix is not read: it is 0."""

    start: int
    stop: int
    of: int


class StoredTensors(Mapping[str, "Tensor"]):
    """The tensors of one file by name, each read from the file whenever it is asked for, and not kept here.

    So a checkpoint needs no more memory than what is kept of it, and on the host of another device one block.
    """

    def __init__(self, readers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> Tensor:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def is_encoder(name: str) -> bool:
    """Whether a matrix of this name is an encoder's, in any format."""
    return "enc" in name.lower() or name == "W_E"


def room_for(
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype | None,
    device: torch.device | str,
    whole: tuple[int, ...] | None = None,
) -> Tensor:
    """An empty tensor on ``device``, in float32 unless ``dtype`` says otherwise; for a part of a tensor of shape
    ``whole`` in the same order of memory.

    A matrix lies in memory as products read it best, so that nobody has to turn it again: on a CPU an encoder's
    features side by side, which are more than the model's width; on a GPU, and of every other matrix, the width.
    """
    import torch

    dtype = dtype or torch.float32
    encoder_on_cpu = is_encoder(name) and torch.device(device).type == "cpu"
    whole = whole or shape
    if len(shape) == 2 and (whole[0] > whole[1]) is encoder_on_cpu:
        return torch.empty(shape[::-1], dtype=dtype, device=device).t()
    return torch.empty(shape, dtype=dtype, device=device)


def copy_to(room: Tensor, stored: Tensor) -> Tensor:
    """``room`` filled with the numbers of ``stored``, which lies in a file on the host, block by block."""
    if room.dim() == 0:
        return room.copy_(stored)
    rows = max(1, _BLOCK // max(1, stored[:1].numel() * stored.element_size()))
    for start in range(0, len(stored), rows):
        block = slice(start, start + rows)
        room[block].copy_(stored[block].to(room.device))
    return room
