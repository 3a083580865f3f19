"""Dense encoded features -> the positive ones only, and the compressed-row form that is stored."""

from collections.abc import Sequence

import torch
from torch import Tensor

from extraction_assets.engine.shapes import SparseFeatures


def dense_to_sparse(sae_features: Tensor) -> SparseFeatures:
    """Dense float32 [n, T, F] -> its positive entries, ordered by (token, feature).

    Zeros of both signs, negative values and NaN are no firings. One synchronisation (``nonzero``);
    peak extra memory one bool per dense entry plus 20 bytes per positive one.
    """
    num_samples, num_positions, num_features = sae_features.shape
    flat = sae_features.reshape(-1, num_features)  # [n * T, F]
    tokens, features = (flat > 0).nonzero(as_tuple=True)  # [Z], [Z]
    return SparseFeatures(tokens, features, flat[tokens, features], num_samples, num_positions, num_features)


def to_dense(sparse: SparseFeatures) -> Tensor:
    """The inverse of ``dense_to_sparse``: float32 [n, T, F]."""
    dense = sparse.values.new_zeros(sparse.num_samples * sparse.num_positions, sparse.num_features)
    dense[sparse.tokens, sparse.features] = sparse.values
    return dense.view(sparse.num_samples, sparse.num_positions, sparse.num_features)


def keep_counted(sparse: SparseFeatures, counted: Tensor) -> SparseFeatures:
    """Drop what stands at positions that do not count; ``counted`` bool [n, T]. One synchronisation."""
    keep = counted.reshape(-1)[sparse.tokens]  # [Z]
    return sparse._replace(tokens=sparse.tokens[keep], features=sparse.features[keep], values=sparse.values[keep])


def take_samples(sparse: SparseFeatures, start: int, stop: int) -> SparseFeatures:
    """Samples ``start:stop`` alone, numbered from 0 again."""
    bounds = torch.tensor([start, stop], device=sparse.tokens.device) * sparse.num_positions
    first, last = torch.searchsorted(sparse.tokens, bounds).tolist()
    return sparse._replace(
        tokens=sparse.tokens[first:last] - start * sparse.num_positions,
        features=sparse.features[first:last],
        values=sparse.values[first:last],
        num_samples=stop - start,
    )


def concatenate(parts: Sequence[SparseFeatures]) -> SparseFeatures:
    """Consecutive groups of samples as one."""
    first_token, tokens = 0, []
    for part in parts:
        tokens.append(part.tokens + first_token)
        first_token += part.num_samples * part.num_positions
    return parts[0]._replace(
        tokens=torch.cat(tokens),
        features=torch.cat([part.features for part in parts]),
        values=torch.cat([part.values for part in parts]),
        num_samples=sum(part.num_samples for part in parts),
    )


def row_pointers(sparse: SparseFeatures) -> Tensor:
    """Compressed-row pointers over the n * T tokens: int64 [n * T + 1]."""
    per_token = torch.bincount(sparse.tokens, minlength=sparse.num_samples * sparse.num_positions)
    return torch.nn.functional.pad(torch.cumsum(per_token, 0), (1, 0))


def from_rows(pointers: Tensor, features: Tensor, values: Tensor, shape: tuple[int, int, int]) -> SparseFeatures:
    """Compressed rows back to ``SparseFeatures``; ``shape`` is (n, T, F)."""
    tokens = torch.repeat_interleave(
        torch.arange(len(pointers) - 1, device=pointers.device), pointers[1:] - pointers[:-1]
    )
    return SparseFeatures(tokens, features.to(torch.int64), values, *shape)
