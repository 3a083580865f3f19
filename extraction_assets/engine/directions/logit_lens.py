"""The logit lens: which tokens a feature's decoder row makes more and less likely, by the weights alone."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.directions.top import rows_at_once, top_of_rows
from extraction_assets.engine.directions.unembedding import Unembedding
from extraction_assets.engine.saes.sae import matmul_precision

LENS_TOKENS = 20
HISTOGRAM_BINS = 50
_IN_CACHE = 1 << 21
"""Logits of a block that a CPU looks at together: they are read several times, so they should fit its cache."""

Update = Callable[[int], object]


class LogitLens(NamedTuple):
    """Logits of each feature's direction over the vocabulary, on the CPU. k is ``LENS_TOKENS`` or the vocabulary."""

    is_defined: Tensor
    """bool [F]: False for a decoder row of zeros, which is no direction; its numbers below mean nothing."""
    top_tokens: Tensor
    """int64 [F, k], by (logit descending, token id ascending)"""
    top_logits: Tensor
    """float32 [F, k]"""
    bottom_tokens: Tensor
    """int64 [F, k], by (logit ascending, token id ascending)"""
    bottom_logits: Tensor
    mean: Tensor
    """float32 [F], over the vocabulary, as the next ones"""
    std: Tensor
    """The population's: divided by V"""
    minimum: Tensor
    maximum: Tensor
    histogram: Tensor
    """int32 [F, ``HISTOGRAM_BINS``]: tokens in equal bins from minimum to maximum"""


def logit_lens(decoder: Tensor, unembedding: Unembedding, update: Update = lambda _: None) -> LogitLens:
    """Logits W_U · norm(row) of every decoder row: float32 [F, D] -> LogitLens, on the device of both.

    float32 throughout, TF32 off: logits are those of a sum of D products, within 1e-5 of the largest one. Same inputs,
    device and versions: the same bits. Never materialises [F, V]: a block of rows at a time, some 128 MiB on a CPU.
    ``update`` is called with the number of features that are done.
    """
    is_defined = decoder.any(dim=1)  # others would be ties of the whole vocabulary, which are sorted slowly
    found = _of_rows(decoder[is_defined], unembedding, update)
    update(int((~is_defined).sum()))
    return LogitLens(is_defined.cpu(), *(_spread(one, is_defined.cpu()) for one in found))


def _spread(of_defined: Tensor, is_defined: Tensor) -> Tensor:
    """Values [n, …] of the n features with a direction among zeros [F, …] of the others."""
    spread = of_defined.new_zeros(len(is_defined), *of_defined.shape[1:])
    spread[is_defined] = of_defined
    return spread


def _of_rows(rows: Tensor, unembedding: Unembedding, update: Update) -> tuple[Tensor, ...]:
    """The fields of ``LogitLens`` but the first, of rows that are no zeros: on the CPU."""
    vocabulary, parts = len(unembedding.weight), list[tuple[Tensor, ...]]()
    at_once = rows_at_once(vocabulary, rows.device)
    looked_at = max(1, min(at_once, _IN_CACHE // vocabulary)) if rows.device.type == "cpu" else at_once
    room = rows.new_empty(vocabulary, min(at_once, len(rows)))
    for block in rows.split(at_once):
        with matmul_precision("highest"):
            # On a CPU this product is faster than the rows times the transposed matrix, by a third.
            normed = unembedding.norm.apply(block)
            product = torch.mm(unembedding.weight, normed.t(), out=room[:, : len(block)])  # [V, f]
        parts += [_of_part(part) for part in product.split(looked_at, dim=1)]
        update(len(block))
    return tuple(torch.cat(of_parts) for of_parts in zip(*parts, strict=True))


def _of_part(product: Tensor) -> tuple[Tensor, ...]:
    """As ``_of_rows``, of the logits [V, f] of some features."""
    logits = torch.add(product.t(), 0.0, out=product.new_empty(product.shape[::-1]))  # a negative zero becomes a zero
    top, top_tokens = top_of_rows(logits, LENS_TOKENS)
    bottom, bottom_tokens = top_of_rows(logits, LENS_TOKENS, largest=False)
    maximum, minimum, mean = top[:, 0], bottom[:, 0], logits.mean(dim=1)
    counts = _histogram(logits, minimum, maximum)
    std = torch.linalg.vector_norm(logits.sub_(mean[:, None]), dim=1) / logits.shape[1] ** 0.5
    found = (top_tokens, top, bottom_tokens, bottom, mean, std, minimum, maximum, counts)
    return tuple(one.cpu() for one in found)


def _histogram(values: Tensor, minimum: Tensor, maximum: Tensor) -> Tensor:
    """Counts int32 [f, bins] of float32 [f, V] in equal bins from a row's minimum to its maximum, that included."""
    bins, rows = HISTOGRAM_BINS, len(values)
    spread = (maximum - minimum)[:, None]
    scale = torch.where(spread > 0, bins / spread, 0)
    number = (values - minimum[:, None]).mul_(scale).clamp_(max=bins - 1).long()
    number += torch.arange(rows, device=values.device)[:, None] * bins
    return torch.bincount(number.view(-1), minlength=rows * bins).view(rows, bins).int()
