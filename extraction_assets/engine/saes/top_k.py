"""The k largest pre-activations of each token, without sorting all of them."""

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.saes.activation import (
    ActivationFunction,
    Firings,
    compare,
    concatenate_firings,
    finite_rows,
    pre_activations,
    true_entries,
)

_BLOCK_ENTRIES = 1 << 23
"""Numbers of a product that are processed together on a CPU: 32 MiB. In smaller blocks threads wait for each other more
often than the cache saves."""
_GROUPS_PER_K = 4
_LEAST_POSITIVE = 2.0**-149


def top_k_firings_of(product: Tensor, wanted: Tensor, activation: ActivationFunction, k: int) -> Firings:
    """The k largest positive pre-activations of the wanted tokens, ties to the lower feature: product float32 [N, F]
    (overwritten), wanted bool [N].

    The same as the first k of a stable descending sort, in which NaN is largest: a NaN takes a place and does not
    fire. The k-th largest of at least k group maxima is at most the k-th largest of all, so few numbers but the k
    reach it, and only those are sorted. On a CPU it goes over the product in blocks. Peak extra
    memory: one bool for each entry of a block, and 12 bytes for each that reaches the bound.
    """
    rows = max(1, _BLOCK_ENTRIES // product.shape[1]) if product.device.type == "cpu" else max(1, len(product))
    blocks = [slice(start, start + rows) for start in range(0, max(1, len(product)), rows)]
    return concatenate_firings([_top_k_of_block(product[block], wanted[block], activation, k) for block in blocks])


def _top_k_of_block(product: Tensor, wanted: Tensor, activation: ActivationFunction, k: int) -> Firings:
    values = pre_activations(product, activation)
    finite = finite_rows(values)
    candidates = compare(np.greater_equal, values, _bounds(values, k))
    if values.device.type != "cpu" or not finite.all():
        candidates |= values.isnan()
    tokens, features = true_entries(candidates)
    kept = wanted[tokens].nonzero().squeeze(1)
    tokens, features = tokens[kept], features[kept]
    strengths = values[tokens, features]
    kept = (_among_largest(tokens, strengths, len(values), k) & (strengths > 0)).nonzero().squeeze(1)
    return Firings(tokens[kept], features[kept], strengths[kept], finite | ~wanted)


def _bounds(values: Tensor, k: int) -> Tensor:
    """A positive number that each of a row's k largest reaches if it is positive, and few others: [N, F] -> [N, 1]."""
    width = values.shape[1]
    if k >= width:
        return values.new_full((len(values), 1), _LEAST_POSITIVE)
    groups = min(_GROUPS_PER_K * k, width)
    size = width // groups
    maxima = values[:, : groups * size].view(len(values), size, groups).amax(dim=1)  # [N, groups]
    return maxima.kthvalue(groups - k + 1, dim=1, keepdim=True).values.clamp(min=_LEAST_POSITIVE)


def _among_largest(tokens: Tensor, strengths: Tensor, num_rows: int, k: int) -> Tensor:
    """Whether each entry is one of its row's k largest, ties to the first: entries in the order of ``tokens``."""
    counts = torch.bincount(tokens, minlength=num_rows)
    most = int(counts.max()) if num_rows else 0
    if most <= k:
        return torch.ones_like(tokens, dtype=torch.bool)
    starts = counts.cumsum(0) - counts
    slots = torch.arange(len(tokens), device=tokens.device) - starts[tokens]
    table = strengths.new_full((num_rows, most), float("-inf"))
    table[tokens, slots] = strengths
    chosen = torch.zeros_like(table, dtype=torch.bool)
    chosen.scatter_(1, table.sort(dim=1, descending=True, stable=True).indices[:, :k], True)
    return chosen[tokens, slots]
