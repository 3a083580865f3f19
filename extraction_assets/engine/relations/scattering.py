"""Tokens on which two features both fire, counted pair by pair on a GPU: for so many features that few of them fire on
a token, and a dense product would mostly multiply zeros."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.relations.parts import Group, TokenPart
from extraction_assets.engine.relations.products import Tile, add_counts
from extraction_assets.engine.relations.strongest import Strongest

_PAIRS = 1 << 26
"""Pairs of firings that are counted at once: 3 GB."""

_OTHERWISE = 5 * 2**30
"""Bytes beside the table: ``_PAIRS``, and what ranks counts (``products``)."""


_SHARE = 0.5
_WHOLE_GB = 16.0
"""Of the memory that is free, a share is used, or so many GiB where that is more: others may use the device too."""


def rows_within(num_features: int, memory_gb: float) -> int:
    """Features of which a table of counts with all others fits a part of the memory (GiB) of a device; 0 where none
    does. The others follow in further passes."""
    used_gb = min(memory_gb, max(_SHARE * memory_gb, _WHOLE_GB))
    return max(0, min(num_features, int((used_gb * 2**30 - _OTHERWISE) / (4 * num_features))))


def add_scattered(
    groups: Iterable[Group], rows: range, firings: Tensor, strongest: Strongest, pairs: int = _PAIRS
) -> None:
    """Add the pairs of the features in ``rows`` with all others to the strongest neighbours of ``rows``.

    ``firings``, int64 [F], lies on the device that computes. Counts are int32, added atomically: whole numbers, the
    same in any order. Peak memory: 4 bytes for each of ``rows`` and F, and ``_OTHERWISE``. One pass over ``groups``.
    """
    num_features = len(firings)
    counts = torch.zeros(len(rows), num_features, dtype=torch.int32, device=firings.device)
    for group in groups:
        for cells in _cells(group.tokens, rows, num_features, firings.device, pairs):
            counts.view(-1).index_add_(0, cells, counts.new_ones(1).expand(len(cells)))
    counts.diagonal(rows.start).zero_()
    add_counts(counts, Tile(rows, range(num_features)), firings, strongest)


def _cells(part: TokenPart, rows: range, num_features: int, device: torch.device, pairs: int) -> Iterator[Tensor]:
    """int64: the cell of each pair of firings on one token of which the first is in ``rows``, some tokens at a time."""
    lengths = np.diff(part.row_pointers)
    before = np.concatenate([[0], np.cumsum(lengths.astype(np.int64) ** 2)])
    first = 0
    while first < len(lengths):
        stop = max(first + 1, int(np.searchsorted(before, before[first] + pairs, side="right")) - 1)
        span = slice(int(part.row_pointers[first]), int(part.row_pointers[stop]))
        if span.stop > span.start:
            ids = torch.from_numpy(part.feature_ids[span]).to(device).to(torch.int64)
            yield _cells_of(ids, torch.from_numpy(lengths[first:stop]).to(device), rows, num_features)
        first = stop


def _cells_of(ids: Tensor, lengths: Tensor, rows: range, num_features: int) -> Tensor:
    """Of some tokens: ids int64 [Z] of what fires on them, and how many on each."""
    starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths, output_size=len(ids))  # [Z]
    beside = torch.repeat_interleave(lengths, lengths, output_size=len(ids))
    chosen = ((ids >= rows.start) & (ids < rows.stop)).nonzero().squeeze(1)
    starts, beside, features = starts[chosen], beside[chosen], ids[chosen] - rows.start
    ends = beside.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    shift = torch.repeat_interleave(starts - (ends - beside), beside, output_size=total)
    others = ids[torch.arange(total, device=ids.device) + shift]
    return torch.repeat_interleave(features * num_features, beside, output_size=total) + others
