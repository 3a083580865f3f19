"""Counts and exact sums of activations by (feature, place, token): firings as int64 keys, sorted and added up.

A key holds all that is asked of a firing: row (of a feature and a place), token id, and the bits of the activation,
which order like the numbers. Sums are whole numbers, so that no order of adding changes a bit.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.ordering import VALUE_BITS, ascending_bits, bits_for, order_by, starts_of
from extraction_assets.engine.statistics.exact_sums import EXPONENTS_PER_LIMB, LIMBS

_MANTISSA_BITS = 23
_LIMB_BITS = bits_for(LIMBS)
_BELOW_LIMB = VALUE_BITS - _LIMB_BITS  # 26: the mantissa, and the exponent's place in its limb

BYTES_PER_KEY = 48
"""Of firings while ``sums_of`` works on them."""

BYTES_PER_SUM = 96
"""Of ``TokenSums`` while two of them are merged: each entry twice, its order, and a copy of a column."""


class TokenSums(NamedTuple):
    """Firings added up by (row, token, limb); E entries, ascending."""

    keys: Tensor
    """int64 [E]: ``(row << token_bits | token) << 5 | limb``."""
    counts: Tensor
    """int64 [E]: firings."""
    sums: Tensor
    """int64 [E]: of their activations, those with an exponent of the limb, in 2^(8 limb - 150). Exact for up to 2^32
    firings an entry: 31 bits each."""


def firing_keys(rows: Tensor, tokens: Tensor, values: Tensor, token_bits: int) -> Tensor:
    """int64 [Z] of int64 rows, int32 tokens and positive float32 values: ``row``, ``token_bits``, ``VALUE_BITS``."""
    return ((rows << token_bits | tokens) << VALUE_BITS) | ascending_bits(values)


def sums_of(keys: Tensor) -> TokenSums:
    """``firing_keys`` in any order, added up; on a CPU they are sorted in place. One synchronisation."""
    keys = _sorted(keys)
    named = keys >> _BELOW_LIMB
    starts, counts = _segments(named)
    exponent = (keys >> _MANTISSA_BITS) & 0xFF
    mantissa = keys & ((1 << _MANTISSA_BITS) - 1)
    # A subnormal number has no leading one, and the exponent of the smallest normal ones.
    whole = torch.where(exponent > 0, mantissa | 1 << _MANTISSA_BITS, mantissa << 1)
    whole <<= exponent % EXPONENTS_PER_LIMB
    return TokenSums(named[starts], counts, _added(whole, starts))


def merge_sums(parts: list[TokenSums]) -> TokenSums:
    """Sums of different firings as one. One synchronisation."""
    keys, counts, sums = (torch.cat(columns) for columns in zip(*parts, strict=True))
    order = order_by((keys, 63), in_runs=True)
    keys = keys[order]
    starts, _ = _segments(keys)
    return TokenSums(keys[starts], _added(counts[order], starts), _added(sums[order], starts))


class TopPairs(NamedTuple):
    """The most frequent tokens of each row, by (row, rank); Q in all."""

    row: np.ndarray
    """int64 [Q]"""
    rank: np.ndarray
    """int64 [Q], from 0: counts descending, ties to the lower token."""
    token: np.ndarray
    """int64 [Q]"""
    counts: np.ndarray
    """int64 [Q]"""
    offsets: np.ndarray
    """int64 [Q + 1]: the limbs of each sum."""
    limbs: np.ndarray
    """int64: their numbers, ascending for each."""
    sums: np.ndarray
    """int64, as in ``TokenSums``."""


def top_pairs(found: TokenSums, num_rows: int, token_bits: int, top: int) -> TopPairs:
    """The ``top`` most frequent tokens of each row. A few synchronisations.

    Peak memory: 512 bytes a row, and 60 bytes for each pair of a row and a token.
    """
    pairs = found.keys >> _LIMB_BITS
    starts, _ = _segments(pairs)
    pairs, counts = pairs[starts], _added(found.counts, starts)
    row, token = pairs >> token_bits, pairs & ((1 << token_bits) - 1)
    chosen = _frequent(row, counts, num_rows, top)
    row, token, counts = row[chosen], token[chosen], counts[chosen]
    most = int(counts.max()) if len(counts) else 0
    order = order_by((row, bits_for(num_rows)), (most - counts, bits_for(most + 1)), (token, token_bits))
    row = row[order]
    rank = torch.arange(len(row), device=row.device) - starts_of(row, num_rows)[row]
    order, row, rank = order[rank < top], row[rank < top], rank[rank < top]
    ends = torch.cat([starts[1:], starts.new_tensor([len(found.keys)])])
    kept = chosen[order]
    lengths = (ends - starts)[kept]
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    shift = torch.repeat_interleave(starts[kept] - offsets[:-1], lengths)
    entry = torch.arange(len(shift), device=shift.device) + shift
    limbs, sums = found.keys[entry] & (LIMBS - 1), found.sums[entry]
    columns = (row, rank, token[order], counts[order], offsets, limbs, sums)
    return TopPairs(*(column.cpu().numpy() for column in columns))


def _frequent(row: Tensor, counts: Tensor, num_rows: int, top: int) -> Tensor:
    """int64: the pairs whose count has as many bits as that of the row's ``top`` most frequent ones, or more: all that
    may be among them, and mostly few others."""
    levels = 64
    level = torch.frexp(counts.to(torch.float64)).exponent.to(torch.int64)  # the bits of a count; counts are > 0
    number = torch.bincount(row * levels + level, minlength=num_rows * levels).view(num_rows, levels)
    at_least = number.flip(1).cumsum(1).flip(1)  # [num_rows, levels]
    threshold = (at_least >= top).sum(1) - 1  # -1 with fewer than ``top`` tokens
    return (level >= threshold[row]).nonzero().squeeze(1)


def _sorted(keys: Tensor) -> Tensor:
    if keys.device.type == "cpu":
        keys.numpy().sort()  # half of the time of torch's
        return keys
    return torch.sort(keys).values


def _segments(ascending: Tensor) -> tuple[Tensor, Tensor]:
    """Where runs of equal numbers begin, int64 [E], and how long they are."""
    first = torch.ones(len(ascending), dtype=torch.bool, device=ascending.device)
    torch.ne(ascending[1:], ascending[:-1], out=first[1:])
    starts = first.nonzero().squeeze(1)
    return starts, torch.diff(starts, append=starts.new_tensor([len(ascending)]))


def _added(values: Tensor, starts: Tensor) -> Tensor:
    """int64 sums of consecutive segments, as differences of running sums: exact where a segment's own sum is below
    2^63, for what overflows cancels."""
    if not len(starts):
        return values
    running = torch.cumsum(values, 0)
    last = torch.cat([running[starts[1:] - 1], running[-1:]])
    return torch.diff(last, prepend=last.new_zeros(1))
