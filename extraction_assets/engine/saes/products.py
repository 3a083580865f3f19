"""The product of tokens and encoder, a part at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_PART_BYTES = 1 << 27
"""Of a part on a GPU, which is a whole tile of the engine's unless a sample alone takes more: in parts of 32 MiB, which
the cache holds, an encode took 2 to 14% longer on an H100, because each product has a beginning and an end."""
_TOGETHER_BYTES = 1 << 29
"""Of whole tiles that the kernels read at once: each kernel has a beginning and an end, too."""
_PART_COLUMNS = 2048
"""Features of a part are a multiple of them, unless they are the last."""


class Product(NamedTuple):
    """Part of the product: some tokens and some features."""

    first_row: int
    first_feature: int
    values: Tensor
    """float32 [rows, columns]; overwritten by the next part"""


def products(x: Tensor, encoder: Tensor, tile: int, columns: int | None = None, together: int = 1) -> Iterator[Product]:
    """xW of x [N, D] and W [D, F], by products of ``tile`` rows: for ``together`` of them after the other all features,
    ``columns`` of them at a time.

    All parts are in the same memory, one after the other. Without rows there is one part without rows.
    """
    width = encoder.shape[1]
    columns = min(columns or width, width)
    room = x.new_empty(tile * together, columns)
    for first in range(0, max(len(x), 1), tile * together):
        rows = x[first : first + tile * together]
        for feature in range(0, width, columns):
            part = encoder[:, feature : feature + columns]
            values = room[: len(rows), : part.shape[1]]
            for row in range(0, len(rows), tile):
                torch.mm(rows[row : row + tile], part, out=values[row : row + tile])
            yield Product(first, feature, values)


def part_columns(tile: int, encoder: Tensor, least: int = 1) -> int:
    """Features of a part for a GPU of W [D, F], at least ``least`` or all."""
    fitting = max(_PART_BYTES // (4 * tile), least)
    return min(max(_PART_COLUMNS, fitting // _PART_COLUMNS * _PART_COLUMNS), encoder.shape[1])


def tiles_together(rows: int, tile: int, columns: int, encoder: Tensor) -> int:
    """How many tiles of ``rows`` a GPU reads at once, of W [D, F]: one where ``columns`` are a part of F."""
    if columns < encoder.shape[1]:
        return 1
    return max(1, min(_TOGETHER_BYTES // (4 * tile * columns), rows // tile))
