"""Exact orders from integer sorts: positive float32 bit patterns order like integers."""

import numpy as np
import torch
from torch import Tensor

_KEY_BITS = 63  # an int64 key without its sign
VALUE_BITS = 31  # a positive float32 without its sign


def ascending_bits(values: Tensor) -> Tensor:
    """Positive float32 [Z] -> int64 [Z] of 31 bits that order like the values (subnormals too)."""
    return values.contiguous().view(torch.int32).to(torch.int64)


def descending_bits(values: Tensor) -> Tensor:
    """Positive float32 [Z] -> int64 [Z] of 31 bits that order against the values."""
    return 0x7FFFFFFF - ascending_bits(values)


def bits_for(count: int) -> int:
    """Bits that hold the integers ``0 .. count - 1``."""
    return max(1, (count - 1).bit_length())


def order_by(*columns: tuple[Tensor, int], in_runs: bool = False) -> Tensor:
    """The stable order of rows by several columns, most significant first: int64 [Z] of row numbers.

    Each column is a non-negative int64 [Z] with its width in bits (at most 63). Columns share one
    int64 key while their widths fit 63 bits; where they do not, one stable sort per key, least
    significant key first, gives the same order.
    ``in_runs`` says that the rows are a few sorted runs one after the other: the same order, sooner on a CPU.
    Peak extra memory: 24 bytes a row (key, sorted key, order).
    """
    order: Tensor | None = None
    for key in _packed_keys(columns):
        key = key if order is None else key[order]
        step = _stable_order(key, in_runs)
        order = step if order is None else order[step]
    assert order is not None, "order_by needs a column"
    return order


def _stable_order(key: Tensor, in_runs: bool) -> Tensor:
    """NumPy's stable sort of int64 is Timsort, which merges runs as it finds them: 40 ms for two runs of 1.6 million
    keys that PyTorch's sorts in 250 ms, as it does any others."""
    if in_runs and key.device.type == "cpu":
        return torch.from_numpy(np.argsort(key.numpy(), kind="stable"))
    return torch.sort(key, stable=True).indices


def _packed_keys(columns: tuple[tuple[Tensor, int], ...]) -> list[Tensor]:
    """int64 keys, least significant first, each packing as many neighbouring columns as fit."""
    keys: list[Tensor] = []
    used = _KEY_BITS + 1
    for column, width in reversed(columns):
        if width > _KEY_BITS:
            raise ValueError(f"a sort column of {width} bits does not fit an int64 key")
        if used + width > _KEY_BITS:
            keys.append(column)
            used = width
        else:
            keys[-1] = keys[-1] | (column << used)
            used += width
    return keys


def rank_within(groups: Tensor, num_groups: int) -> Tensor:
    """Rank from 0 of each row within its group; ``groups`` int64 [Z] ascending -> int64 [Z]. No synchronisation.

    Memory never grows with the number of groups: where there are more than rows, each row looks for its group's begin.
    """
    rows = torch.arange(len(groups), device=groups.device)
    if num_groups > len(groups):
        return rows - torch.searchsorted(groups, groups)
    return rows - starts_of(groups, num_groups)[groups]


def starts_of(groups: Tensor, num_groups: int) -> Tensor:
    """Where each group begins, int64 [num_groups + 1]; ``groups`` int64 [Z] ascending, each below ``num_groups``.

    By bisection: ``bincount`` asks a GPU for the smallest and the largest number first, and waits for the answer.
    """
    return torch.searchsorted(groups, torch.arange(num_groups + 1, device=groups.device))


def offsets_of(lengths: Tensor) -> Tensor:
    """Segment lengths int64 [E] -> offsets int64 [E + 1], from 0 to the total."""
    return torch.nn.functional.pad(torch.cumsum(lengths, 0), (1, 0))


def gather_segments(offsets: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the chosen segments, in the chosen order: (row numbers [M'], offsets [len(chosen) + 1]). One
    synchronisation; ``repeat_interleave`` makes two where nobody says how many rows there will be."""
    lengths = (offsets[1:] - offsets[:-1])[chosen]
    new_offsets = offsets_of(lengths)
    total = int(new_offsets[-1])
    shift = torch.repeat_interleave(offsets[:-1][chosen] - new_offsets[:-1], lengths, output_size=total)
    return torch.arange(total, device=offsets.device) + shift, new_offsets
