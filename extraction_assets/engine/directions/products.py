"""Products of many rows with a matrix of as many columns, a block of rows at a time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from extraction_assets.engine.saes.sae import matmul_precision

_COLUMNS_AT_ONCE = 1024
"""Of a product on a CPU: with so few the library's product is as fast as with the result transposed, and a third
faster than with all of them at once."""


def products(
    rows: Tensor, matrix: Tensor, prepare: Callable[[Tensor], Tensor] = lambda block: block
) -> Iterator[Tensor]:
    """Rows float32 [F, D] times a matrix [N, D] transposed: blocks [f, N], in the order of the rows, on their device.

    ``prepare`` gives what is multiplied, [f, D], of a block of rows.
    float32, TF32 off. A block of products is overwritten by the next one. Peak extra memory: one block, some 64 MiB on
    a CPU and 1 GiB on a GPU, at most 4,096 rows.
    """
    room = rows.new_empty(min(len(rows), rows_at_once(len(matrix), rows.device)), len(matrix))
    step = _COLUMNS_AT_ONCE if rows.device.type == "cpu" else max(1, len(matrix))
    for block in rows.split(max(1, len(room))):
        prepared, found = prepare(block), room[: len(block)]
        with matmul_precision("highest"):
            for part, into in zip(matrix.split(step), found.split(step, dim=1), strict=True):
                torch.mm(prepared, part.t(), out=into)
        yield found


def rows_at_once(width: int, device: torch.device) -> int:
    """How many rows of ``width`` float32 numbers are worked on together: some 64 MiB on a CPU, 1 GiB on a GPU."""
    room = 1 << 24 if device.type == "cpu" else 1 << 28
    return max(1, min(4096, room // max(1, width)))
