"""Tokens on which two features both fire, counted by dense products on a GPU."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.relations.parts import Group, TokenPart
from extraction_assets.engine.relations.strongest import Candidates, Strongest, jaccard_index

TILE_FEATURES = 1 << 14
"""Features a side: 16,384 squared counts of 4 bytes are 1 GiB."""

_TOKENS = 1 << 15
"""Tokens a product: far below 2^24, up to where float32 counts exactly."""

_SELECTED = 1 << 25
"""Counts that are ranked at once: 256 MiB as float64, five of them at a time."""


class Tile(NamedTuple):
    """A part of the table of all pairs: features ``rows`` against features ``columns``, not below the diagonal."""

    rows: range
    columns: range


def side_within(memory_gb: float) -> int:
    """Features a side of a tile that fits the memory (GiB) of a device, ``TILE_FEATURES`` at most; 0 where even 1,024
    do not. Bytes: counts, one product and its whole numbers; two operands; what ranks them."""
    side = TILE_FEATURES
    while side >= 1024 and 12 * side**2 + 8 * side * _TOKENS + 40 * _SELECTED > memory_gb * 2**30:
        side //= 2
    return side if side >= 1024 else 0


def tiles(num_features: int, side: int) -> list[Tile]:
    """Tiles that hold every pair of features once (those on the diagonal twice)."""
    parts = [range(start, min(start + side, num_features)) for start in range(0, num_features, side)]
    return [Tile(rows, columns) for number, rows in enumerate(parts) for columns in parts[number:]]


def add_products(
    groups: Iterable[Group], tile: Tile, firings: Tensor, strongest: Strongest, tokens: int = _TOKENS
) -> None:
    """Add the pairs of a tile to the strongest neighbours, those of either side.

    ``firings``, int64 [F], lies on the device that computes. Products of 0 and 1, exact in any dtype, whose sums are
    exact in float32 below 2^24 and kept as int32. Peak memory: see ``side_within``, 8 GiB at ``TILE_FEATURES`` (half of
    it for operands of 32 bits, which older versions of torch need), whatever F is. One pass over ``groups``.
    """
    counts = torch.zeros(len(tile.rows), len(tile.columns), dtype=torch.int32, device=firings.device)  # [R, C]
    for group in groups:
        for rows, columns in _operands(group.tokens, tile, firings.device, tokens):
            counts += _product(rows, columns).to(torch.int32)
    if tile.rows == tile.columns:
        counts.fill_diagonal_(0)
    add_counts(counts, tile, firings, strongest)
    if tile.rows != tile.columns:
        add_counts(counts.T, Tile(tile.columns, tile.rows), firings, strongest)


def _operands(part: TokenPart, tile: Tile, device: torch.device, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Which features of either side fire on some tokens: 0 and 1 [n, R] and [n, C], some tokens at a time."""
    lengths = np.diff(part.row_pointers)
    firing = np.flatnonzero(lengths)  # tokens on which nothing fires have no part in a product
    pointers = np.concatenate([[0], np.cumsum(lengths[firing])])
    for start in range(0, len(firing), tokens):
        stop = min(start + tokens, len(firing))
        first, last = pointers[start], pointers[stop]
        ids = torch.from_numpy(part.feature_ids[first:last]).to(device)
        counts = torch.from_numpy(lengths[firing[start:stop]]).to(device)
        numbers = torch.repeat_interleave(torch.arange(stop - start, device=device), counts, output_size=last - first)
        rows = _dense(numbers, ids, stop - start, tile.rows)
        yield rows, rows if tile.rows == tile.columns else _dense(numbers, ids, stop - start, tile.columns)


def _dense(numbers: Tensor, ids: Tensor, count: int, features: range) -> Tensor:
    """[count, len(features)]: 1 where a feature fires. One column more takes what is outside: no synchronisation."""
    inside = (ids >= features.start) & (ids < features.stop)
    column = torch.where(inside, ids - features.start, len(features)).to(torch.int64)
    width = (len(features) + 8) // 8 * 8  # products are fastest with rows of whole 16 bytes
    dense = torch.zeros(count, width, dtype=_operand_dtype(ids.device), device=ids.device)
    dense[numbers, column] = 1
    return dense[:, : len(features)]


def _operand_dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if _has_wide_sums(device) else torch.float32


def _has_wide_sums(device: torch.device) -> bool:
    """Whether products of bfloat16 may be given as float32 here: since torch 2.8, on a GPU."""
    if device.type != "cuda":
        return False
    one = torch.ones(16, 16, dtype=torch.bfloat16, device=device)
    try:
        torch.mm(one, one, out_dtype=torch.float32)
    except (TypeError, RuntimeError, NotImplementedError):
        return False
    return True


def _product(rows: Tensor, columns: Tensor) -> Tensor:
    """float32 [R, C] of [n, R] and [n, C]: on how many of the n tokens both are 1. Exact for n below 2^24."""
    if rows.dtype == torch.bfloat16:
        return torch.mm(rows.T, columns, out_dtype=torch.float32)
    return torch.mm(rows.T, columns)  # TF32 holds 0 and 1 too


def add_counts(counts: Tensor, tile: Tile, firings: Tensor, strongest: Strongest) -> None:
    """Add the pairs of a tile, counts [R, C], that may enter the strongest of its rows, some rows at a time."""
    step = max(1, _SELECTED // len(tile.columns))
    for start in range(tile.rows.start, tile.rows.stop, step):
        rows = range(start, min(start + step, tile.rows.stop))
        part = counts[rows.start - tile.rows.start : rows.stop - tile.rows.start]  # [r, C]
        strongest.add(rows, _candidates(part, rows, tile.columns, firings, strongest))


def _candidates(part: Tensor, rows: range, columns: range, firings: Tensor, strongest: Strongest) -> Candidates:
    """At least the strongest of each row: all that are tied with the last of them."""
    of_rows, of_columns = firings[rows.start : rows.stop, None], firings[columns.start : columns.stop]
    jaccard = torch.where(part > 0, jaccard_index(part, of_rows, of_columns), 0.0)  # 0 / 0 where neither ever fires
    least = jaccard.topk(min(strongest.top, len(columns)), dim=1).values[:, -1]
    least = torch.maximum(least, strongest.threshold(rows))
    row, column = ((jaccard >= least[:, None]) & (part > 0)).nonzero(as_tuple=True)
    count = part[row, column].to(torch.int64)
    return Candidates(row + rows.start, column + columns.start, count, jaccard[row, column])
