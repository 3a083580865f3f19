"""Tokens whose activation is far longer than the others of their sample: attention sinks."""

import torch
from torch import Tensor


def outlier_positions(activations: Tensor, counted: Tensor, multiple: float) -> Tensor:
    """bool [n, T]: counted positions whose activation's norm is above ``multiple`` times the sample's median norm.

    ``activations`` [n, T, D], ``counted`` bool [n, T]. The median is that of the sample's counted positions, the lower
    of the two middle ones where their number is even, so that no neighbour in the batch has a part in it. Norms are
    computed in float32 and one sample after the other, always in the same shape: their last bits do not depend on n.
    A position with a NaN or an infinity is no outlier: the pass refuses it.

    The filter is that of dictionary_learning's activation buffer (``max_activation_norm_multiple``), which takes the
    median over a batch. Peak memory: one sample in float32. No synchronisation.
    """
    norms = torch.stack([_norms(sample) for sample in activations])  # [n, T]
    known = counted & ~norms.isnan()
    ascending = norms.where(known, torch.inf).sort(dim=1).values
    middle = (known.sum(dim=1, keepdim=True) - 1).clamp(min=0) // 2
    median = ascending.gather(1, middle)  # [n, 1]; infinite where nothing counts
    return known & (norms > multiple * median)


def _norms(activations: Tensor) -> Tensor:
    """float32 [T] of [T, D]; NaN where there is a NaN or an infinity."""
    norms = torch.linalg.vector_norm(activations.float(), dim=-1)
    return norms.where(torch.isfinite(activations).all(dim=-1), torch.nan)
