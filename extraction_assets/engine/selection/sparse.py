"""Dense encoded features -> the positive ones only, and the compressed-row form that is stored."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from extraction_assets.engine.ordering import offsets_of
from extraction_assets.engine.shapes import FeatureRows, SparseFeatures


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
    """Drop entries at positions that do not count; ``counted`` bool [n, T]. One synchronisation."""
    keep = counted.reshape(-1)[sparse.tokens].nonzero().squeeze(1)
    return sparse._replace(tokens=sparse.tokens[keep], features=sparse.features[keep], values=sparse.values[keep])


def take_samples(sparse: SparseFeatures, start: int, stop: int) -> SparseFeatures:
    """Samples ``start:stop`` alone, numbered from 0 again. One synchronisation, none where all are taken."""
    if (start, stop) == (0, sparse.num_samples):
        return sparse
    first = last = 0
    if start < stop:
        first_token, last_token = start * sparse.num_positions, stop * sparse.num_positions
        edges = torch.arange(first_token, last_token + 1, last_token - first_token, device=sparse.tokens.device)
        first, last = torch.searchsorted(sparse.tokens, edges).tolist()
    return sparse._replace(
        tokens=sparse.tokens[first:last] - start * sparse.num_positions,
        features=sparse.features[first:last],
        values=sparse.values[first:last],
        num_samples=stop - start,
    )


def each_sample(sparse: SparseFeatures, count: int) -> list[SparseFeatures]:
    """The first ``count`` samples, each alone. One synchronisation."""
    edges = torch.arange(count + 1, device=sparse.tokens.device) * sparse.num_positions
    bounds = torch.searchsorted(sparse.tokens, edges).tolist()
    return [
        sparse._replace(
            tokens=sparse.tokens[first:last] - sample * sparse.num_positions,
            features=sparse.features[first:last],
            values=sparse.values[first:last],
            num_samples=1,
        )
        for sample, (first, last) in enumerate(pairwise(bounds))
    ]


def to_rows(sparse: SparseFeatures) -> FeatureRows:
    """``SparseFeatures`` as compressed rows, on the same device. No synchronisation on a GPU."""
    num_rows = sparse.num_samples * sparse.num_positions
    edges = torch.arange(num_rows + 1, device=sparse.tokens.device)
    pointers = torch.searchsorted(sparse.tokens, edges)  # [n * T + 1]
    return FeatureRows(pointers, sparse.features.to(torch.int32), sparse.values, *sparse[3:])


def take_rows(rows: FeatureRows, start: int, stop: int, device: torch.device | None = None) -> SparseFeatures:
    """Samples ``start:stop`` of compressed rows that lie on the CPU, numbered from 0 again, on ``device``."""
    pointers = rows.row_pointers[start * rows.num_positions : stop * rows.num_positions + 1]
    first, last = int(pointers[0]), int(pointers[-1])
    features, values = rows.feature_ids[first:last].to(device), rows.values[first:last].to(device)
    lengths = pointers.diff().to(device)
    tokens = torch.repeat_interleave(
        torch.arange(len(lengths), device=device), lengths, output_size=last - first
    )  # the size is known: no synchronisation
    return SparseFeatures(tokens, features.to(torch.int64), values, stop - start, rows.num_positions, rows.num_features)


def rows_of_samples(sparse: SparseFeatures, samples: Tensor) -> FeatureRows:
    """Some of the samples as compressed rows, on the same device; ``samples`` int64 [S] on it, counted from the first
    one here. One synchronisation."""
    ends = row_ends(sparse, samples)
    return rows_between(sparse, ends, ends[:, :: sparse.num_positions].flatten().tolist())


def row_ends(sparse: SparseFeatures, samples: Tensor) -> Tensor:
    """Where the rows of some samples begin, and the last one ends: int64 [S, T + 1]. No synchronisation."""
    positions = torch.arange(sparse.num_positions + 1, device=samples.device)
    return torch.searchsorted(sparse.tokens, samples[:, None] * sparse.num_positions + positions)


def rows_between(sparse: SparseFeatures, ends: Tensor, bounds: list[int]) -> FeatureRows:
    """The rows of samples with ``row_ends`` [S, T + 1]; ``bounds`` are the first and last number of each of its rows.
    No synchronisation."""
    spans = list(zip(bounds[::2], bounds[1::2], strict=True))
    features = torch.cat([sparse.features[first:last] for first, last in spans])
    values = torch.cat([sparse.values[first:last] for first, last in spans])
    pointers = offsets_of(ends.diff(dim=1).flatten())
    return FeatureRows(pointers, features.to(torch.int32), values, len(spans), *sparse[4:])


def no_rows(num_positions: int, num_features: int) -> FeatureRows:
    """Compressed rows of no samples."""
    none = torch.zeros(0)
    return FeatureRows(torch.zeros(1, dtype=torch.int64), none.to(torch.int32), none, 0, num_positions, num_features)


def concatenate_rows(parts: Sequence[FeatureRows]) -> FeatureRows:
    """Compressed rows of consecutive groups of samples as one; of one group its own memory. No synchronisation."""
    if len(parts) == 1:
        return parts[0]
    return parts[0]._replace(
        row_pointers=joined_pointers(parts),
        feature_ids=torch.cat([part.feature_ids for part in parts]),
        values=torch.cat([part.values for part in parts]),
        num_samples=sum(part.num_samples for part in parts),
    )


def joined_pointers(parts: Sequence[FeatureRows]) -> Tensor:
    """``row_pointers`` int64 [n * T + 1] of consecutive groups of samples as one. No synchronisation."""
    first, pointers = 0, [parts[0].row_pointers[:1]]
    for part in parts:
        pointers.append(part.row_pointers[1:] + first)
        first += len(part.values)
    return torch.cat(pointers)
