"""The decoder rows that point where a feature's does, by cosine: in its SAE and in others of the same width."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.directions.products import products
from extraction_assets.engine.directions.top import top_of_rows

NEAREST = 20

Update = Callable[[int], object]


class NearestRows(NamedTuple):
    """The rows nearest to each of F features, on the CPU, by (cosine descending, SAE, feature ascending).

    Slots without a row, of a row of zeros or where there are fewer rows, have cosine -inf."""

    sae: Tensor
    """int64 [F, k]: number of the SAE that the row is of"""
    feature: Tensor
    """int64 [F, k]"""
    cosine: Tensor
    """float32 [F, k], -1 to 1"""


def unit_rows(decoder: Tensor) -> Tensor:
    """Decoder rows float32 [F, D] of length 1; a row of zeros stays so."""
    return decoder / decoder.norm(dim=1, keepdim=True).clamp(min=torch.finfo(decoder.dtype).tiny)


def nearest_rows(
    rows: Tensor, others: Tensor, sae: int, *, is_itself: bool = False, update: Update = lambda _: None
) -> NearestRows:
    """The ``NEAREST`` of ``others`` [G, D] to each of ``rows`` [F, D], both of ``unit_rows`` on one device; ``sae`` is
    the number of the SAE of ``others``. With ``is_itself`` both are one SAE, and no row is its own neighbour.

    float32, TF32 off: a cosine is within 1e-6. Rows of zeros have no neighbours, and are nobody's. Never materialises
    [F, G]: a block of rows at a time, some 64 MiB on a CPU. ``update`` is called with the number of rows that are done.
    """
    is_zero, parts, first = ~others.any(dim=1), list[tuple[Tensor, Tensor]](), 0
    for cosines in products(rows, others):  # [f, G]
        count = len(cosines)
        cosines.clamp_(-1, 1).masked_fill_(is_zero, -torch.inf)
        cosines[~rows[first : first + count].any(dim=1)] = -torch.inf
        if is_itself:
            number = torch.arange(count, device=rows.device)
            cosines[number, first + number] = -torch.inf
        cosine, feature = top_of_rows(cosines, NEAREST)
        parts.append((cosine.cpu(), feature.cpu()))
        first += count
        update(count)
    cosine, feature = (torch.cat(of_blocks) for of_blocks in zip(*parts, strict=True))
    return NearestRows(torch.full_like(feature, sae), feature, cosine)


def merge_nearest(one: NearestRows, other: NearestRows) -> NearestRows:
    """The ``NEAREST`` of two SAEs' nearest rows, of which ``one`` has the lower numbers: that is first in ties."""
    sae, feature, cosine = (torch.cat(pair, dim=1) for pair in zip(one, other, strict=True))
    cosine, place = top_of_rows(cosine, NEAREST)
    return NearestRows(sae.gather(1, place), feature.gather(1, place), cosine)
