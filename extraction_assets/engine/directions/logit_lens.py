"""The logit lens: which tokens a feature's decoder row makes more and less likely, by the weights alone."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.directions.products import products
from extraction_assets.engine.directions.top import top_of_rows
from extraction_assets.engine.directions.unembedding import Unembedding

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
    device and versions: the same bits. Never materialises [F, V]: a block of rows at a time, some 96 MiB on a CPU.
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
    for logits in products(rows, unembedding.weight, unembedding.norm.apply):  # [f, V]
        looked_at = max(1, _IN_CACHE // vocabulary) if rows.device.type == "cpu" else len(logits)
        room = _Room(torch.empty_like(logits[:looked_at]), torch.empty_like(logits[:looked_at], dtype=torch.int64))
        parts += [_of_part(part, room) for part in logits.split(looked_at)]
        update(len(logits))
    return tuple(torch.cat(of_parts) for of_parts in zip(*parts, strict=True))


class _Room(NamedTuple):
    """Memory for numbers of as many logits as are looked at together: new memory for each costs more than its use."""

    numbers: Tensor
    """float32 [n, V]"""
    integers: Tensor
    """int64 [n, V]"""


def _of_part(logits: Tensor, room: _Room) -> tuple[Tensor, ...]:
    """As ``_of_rows``, of the logits [n, V] of some features."""
    top, top_tokens = top_of_rows(logits, LENS_TOKENS)
    bottom, bottom_tokens = top_of_rows(logits, LENS_TOKENS, largest=False)
    top, bottom, mean = top + 0.0, bottom + 0.0, logits.mean(dim=1)  # a negative zero becomes a zero
    maximum, minimum = top[:, 0], bottom[:, 0]
    counts = _histogram(logits, minimum, maximum, room)
    centred = torch.sub(logits, mean[:, None], out=room.numbers[: len(logits)])
    std = torch.linalg.vector_norm(centred, dim=1) / logits.shape[1] ** 0.5
    found = (top_tokens, top, bottom_tokens, bottom, mean, std, minimum, maximum, counts)
    return tuple(one.cpu() for one in found)


def _histogram(values: Tensor, minimum: Tensor, maximum: Tensor, room: _Room) -> Tensor:
    """Counts int32 [n, bins] of float32 [n, V] in equal bins from a row's minimum to its maximum, that included."""
    bins, rows = HISTOGRAM_BINS, len(values)
    spread = (maximum - minimum)[:, None]
    scale = torch.where(spread > 0, bins / spread, 0)
    above = torch.sub(values, minimum[:, None], out=room.numbers[:rows])
    number = room.integers[:rows].copy_(above.mul_(scale).clamp_(max=bins - 1))
    number += torch.arange(rows, device=values.device)[:, None] * bins
    return torch.bincount(number.view(-1), minlength=rows * bins).view(rows, bins).int()
