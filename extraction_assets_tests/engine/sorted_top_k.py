"""TopK by sorting everything: slow and obvious."""

import torch
from torch import Tensor

from extraction_assets.engine.saes.activation import Firings


def sorted_top_k(pre: Tensor, wanted: Tensor, k: int) -> Firings:
    """The first k of a stable descending sort of each wanted row that are positive, by feature: pre [N, F]."""
    values, features = pre.sort(dim=1, descending=True, stable=True)
    features, order = features[:, :k].sort(dim=1)
    values = values[:, :k].gather(1, order)
    tokens, slots = ((values > 0) & wanted[:, None]).nonzero(as_tuple=True)
    finite = torch.isfinite(pre).all(dim=1) | ~wanted
    return Firings(tokens, features[tokens, slots], values[tokens, slots], finite)
