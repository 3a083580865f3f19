"""The product of tokens and encoder, a part at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_PART_BYTES = 1 << 25
"""Of a part on a GPU: the less, the more of it is still in the cache when it is read."""
_WIDE = 1536
"""D from which a part of that size is work enough: less than 100 us of it would wait for the host, and a narrow
product of few columns is slower."""
_PART_COLUMNS = 2048
"""Features of a part are a multiple of them, unless they are the last."""


class Product(NamedTuple):
    """Part of the product: some tokens and some features."""

    first_row: int
    first_feature: int
    values: Tensor
    """float32 [rows, columns]; overwritten by the next part"""


def products(x: Tensor, encoder: Tensor, tile: int, columns: int | None = None) -> Iterator[Product]:
    """xW of x [N, D] and W [D, F]: for ``tile`` rows after the other all features, ``columns`` of them at a time.

    All parts are in the same memory, one after the other: one that fits the cache need not go to the device's memory
    before it is read again. Without rows there is one part without rows.
    """
    width = encoder.shape[1]
    columns = min(columns or width, width)
    room = x.new_empty(tile, columns)
    for row in range(0, max(len(x), 1), tile):
        rows = x[row : row + tile]
        for feature in range(0, width, columns):
            part = encoder[:, feature : feature + columns]
            yield Product(row, feature, torch.mm(rows, part, out=room[: len(rows), : part.shape[1]]))


def part_columns(tile: int, encoder: Tensor, narrow_bytes: int, least: int = 1) -> int:
    """Features of a part for a GPU of W [D, F], at least ``least`` or all; of ``narrow_bytes`` where D is small."""
    size = _PART_BYTES if encoder.shape[0] >= _WIDE else narrow_bytes
    fitting = max(size // (4 * tile), least)
    return min(max(_PART_COLUMNS, fitting // _PART_COLUMNS * _PART_COLUMNS), encoder.shape[1])
