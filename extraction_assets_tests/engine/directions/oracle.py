"""The logit lens and nearest rows the slow and obvious way, in float64."""

import numpy as np
import torch
from torch import Tensor

from extraction_assets.engine.directions.final_norm import FinalNorm
from extraction_assets.engine.directions.unembedding import Unembedding


def make_unembedding(vocabulary: int, width: int, seed: int = 0, *, is_centred: bool = False) -> Unembedding:
    generator = torch.Generator().manual_seed(seed)
    gain = torch.rand(width, generator=generator) + 0.5
    weight = torch.randn(vocabulary, width, generator=generator)
    return Unembedding(weight, FinalNorm(gain, is_centred, "weight", False), "of a test")


def logits_of(decoder: Tensor, unembedding: Unembedding) -> np.ndarray:
    """float64 [F, V]"""
    rows = decoder.double()
    if unembedding.norm.is_centred:
        rows = torch.stack([row - row.mean() for row in rows])
    logits: np.ndarray = ((rows * unembedding.norm.gain.double()) @ unembedding.weight.double().t()).numpy()
    return logits


def cosines_of(rows: Tensor, others: Tensor) -> np.ndarray:
    """float64 [F, G]"""
    one, other = rows.double().numpy(), others.double().numpy()
    products: np.ndarray = one @ other.T / np.linalg.norm(one, axis=1)[:, None] / np.linalg.norm(other, axis=1)
    return products
