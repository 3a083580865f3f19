"""The strongest neighbours of each feature among those seen so far."""

from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.ordering import rank_within


class Candidates(NamedTuple):
    """Pairs of features that fire together; C in all, in any order, each pair once from either side."""

    feature: Tensor
    """int64 [C]: whose neighbour it is."""
    other: Tensor
    """int64 [C]"""
    counts: Tensor
    """int64 [C]: tokens on which both fire, > 0."""
    jaccard: Tensor
    """float64 [C]: ``counts`` of the tokens on which either fires."""


def jaccard_index(count: Tensor, firings: Tensor, other_firings: Tensor) -> Tensor:
    """float64, one division of whole numbers: the same bits on every device."""
    return count.to(torch.float64) / (firings + other_firings - count).to(torch.float64)


class Strongest:
    """At most ``top`` neighbours a feature, by (Jaccard index descending, index ascending), whatever the order in which
    candidates come."""

    def __init__(self, num_features: int, top: int, device: torch.device) -> None:
        self.top = top
        self._other = torch.zeros(num_features, top, dtype=torch.int64, device=device)
        self._count = torch.zeros_like(self._other)  # 0: no neighbour
        self._jaccard = torch.zeros(num_features, top, dtype=torch.float64, device=device)

    def threshold(self, features: range) -> Tensor:
        """float64 [len(features)]: what is weaker than this cannot enter; 0 for a feature with fewer than ``top``."""
        return self._jaccard[features.start : features.stop, -1]

    def add(self, features: range, new: Candidates) -> None:
        """Keep the strongest of what is kept of ``features`` and what is new, which is of no others."""
        both = Candidates(*(torch.cat(columns) for columns in zip(self._kept(features), new, strict=True)))
        order = torch.argsort(both.other, stable=True)
        order = order[torch.argsort(both.jaccard[order], descending=True, stable=True)]
        order = order[torch.argsort(both.feature[order], stable=True)]
        rank = rank_within(both.feature[order] - features.start, len(features))
        order, rank = order[rank < self.top], rank[rank < self.top]
        place = (both.feature[order], rank)
        self._other[place] = both.other[order]
        self._count[place] = both.counts[order]
        self._jaccard[place] = both.jaccard[order]

    def kept(self) -> Candidates:
        """Ordered by (feature, Jaccard index descending, other)."""
        return self._kept(range(len(self._other)))

    def _kept(self, features: range) -> Candidates:
        rows = slice(features.start, features.stop)
        feature, rank = self._count[rows].nonzero(as_tuple=True)
        place = (feature + features.start, rank)
        return Candidates(place[0], self._other[place], self._count[place], self._jaccard[place])
