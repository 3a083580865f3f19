"""Encoded features -> top-k table: the vectorized selection.

Every function here is exact: integer sorts by the total order, never ``topk`` on tied floats.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.ordering import (
    VALUE_BITS,
    ascending_bits,
    bits_for,
    descending_bits,
    order_by,
    rank_within,
    starts_of,
)
from extraction_assets.engine.selection.pairs import FiringPairs, pairs_above
from extraction_assets.engine.shapes import SparseFeatures, TopKTable


class TopPositions(NamedTuple):
    """The strongest firing positions of each feature."""

    values: Tensor
    """float32 [F, k] or [B, F, k], descending; 0 in unused slots."""
    positions: Tensor
    """int64, same shape; -1 in unused slots."""


def vectorized_max_activations(sae_features: Tensor) -> Tensor:
    """Maximum over the positions: [T, F] -> [F], or [B, T, F] -> [B, F].

    All features at once instead of one column after the other. NaN propagates. No extra memory but the
    result; the input is read once.
    """
    return sae_features.amax(dim=-2)


def vectorized_top_k_positions(sae_features: Tensor, k: int = 5, mask: Tensor | None = None) -> TopPositions:
    """The k strongest firing positions of each feature: [T, F] -> [F, k], or [B, T, F] -> [B, F, k].

    Positions where a feature fires (> 0), by (activation descending, position ascending); never a
    zero-activation filler: an unused slot is value 0, position -1. ``k`` may exceed T. ``mask``, bool [T] or
    [B, T], is True at positions that count; what stands elsewhere (NaN too) is ignored.
    Peak extra memory: about 32 bytes per entry of the input, for int64 keys that carry value and position, so
    that ties are decided by the key and not by ``topk``.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    num_positions = sae_features.shape[-2]
    sae_features = sae_features.float()  # before the comparison: a float64 may round to zero
    fires = sae_features > 0  # [..., T, F]
    if mask is not None:
        fires &= mask.unsqueeze(-1)
    reversed_position = torch.arange(num_positions - 1, -1, -1, device=sae_features.device).unsqueeze(-1)
    bits = ascending_bits(sae_features)
    keys = torch.where(fires, (bits << 32) | reversed_position, -1)  # [..., T, F]
    best = keys.topk(min(k, num_positions), dim=-2).values.transpose(-1, -2)  # [..., F, min(k, T)]
    best = torch.nn.functional.pad(best, (0, max(0, k - num_positions)), value=-1)  # [..., F, k]
    used = best >= 0
    values = (best >> 32).to(torch.int32).view(torch.float32)
    positions = num_positions - 1 - (best & 0xFFFFFFFF)
    return TopPositions(torch.where(used, values, 0.0), torch.where(used, positions, -1))


def sample_maxima(features: SparseFeatures) -> Tensor:
    """Maximum activation of each feature in each sample: float32 [n, F], 0 where it does not fire.

    A scatter of maxima, so the result does not depend on scheduling. Never materialises [n, T, F]. No synchronisation.
    """
    size = (features.num_samples, features.num_features)
    bits = torch.zeros(size, dtype=torch.int32, device=features.values.device)  # a GPU has atomic maxima of integers
    bits.view(-1).scatter_reduce_(0, _cells(features), features.values.contiguous().view(torch.int32), "amax")
    return bits.view(torch.float32)


def _cells(features: SparseFeatures) -> Tensor:
    """Number of the (sample, feature) pair of each entry: int64 [Z]."""
    return (features.tokens // features.num_positions) * features.num_features + features.features


def select_top_k(
    features: SparseFeatures, maxima: Tensor, first_sample: int, top_k: int, floor: Tensor | float = 0.0
) -> TopKTable:
    """The top-k table of one group of samples.

    ``features`` holds counted positions only, ``maxima`` is ``sample_maxima(features)``. An example needs a
    maximum strictly above ``floor`` (a number, or float32 [F]): ``min_activation``, or the maximum of the
    K-th example of a table that holds only earlier samples, which no newcomer with an equal maximum can beat.
    Works on the non-zeros and on [n, F], never on [n, T, F]. Three synchronisations.
    """
    pairs = pairs_above(maxima, floor)
    top = pairs.take(strongest_pairs(pairs, features.num_samples, features.num_features, top_k))
    firings = firings_of(features, top.samples, top.features)
    return TopKTable(top.features, top.samples + first_sample, top.maxima, *firings)


def strongest_pairs(pairs: FiringPairs, num_samples: int, num_features: int, top_k: int) -> Tensor:
    """Rows int64 [E] of the ``top_k`` strongest pairs of each feature, in the order of a table. One synchronisation."""
    order = order_by(
        (pairs.features, bits_for(num_features)),
        (descending_bits(pairs.maxima), VALUE_BITS),
        (pairs.samples, bits_for(num_samples)),
    )
    return order[rank_within(pairs.features[order], num_features) < top_k]


def firings_of(features: SparseFeatures, samples: Tensor, neurons: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All firings of the given examples, strongest first: (offsets [E + 1], positions [M], activations [M]).

    Peak extra memory: 8 bytes a cell of [n, F] and 16 an entry. One synchronisation.
    """
    count = len(samples)
    numbers = torch.full((features.num_samples * features.num_features,), -1, device=samples.device)
    numbers[samples * features.num_features + neurons] = torch.arange(count, device=samples.device)
    example = numbers[_cells(features)]  # [Z], -1 for entries of no kept example
    kept = (example >= 0).nonzero().squeeze(1)  # [M]
    example, values = example[kept], features.values[kept]
    positions = features.tokens[kept] % features.num_positions
    order = order_by(
        (example, bits_for(max(1, count))),
        (descending_bits(values), VALUE_BITS),
        (positions, bits_for(features.num_positions)),
    )
    return starts_of(example[order], count), positions[order], values[order]
