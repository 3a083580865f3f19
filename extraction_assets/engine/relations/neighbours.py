"""Co-firing neighbours: counts, Jaccard index and PMI over all pairs of features, the strongest of each feature."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from extraction_assets.engine.ordering import rank_within
from extraction_assets.engine.relations.counting import count_pairs
from extraction_assets.engine.relations.parts import Groups
from extraction_assets.engine.relations.products import TILE_FEATURES, add_products, tiles
from extraction_assets.engine.relations.strongest import Strongest
from extraction_assets.engine.relations.totals import Totals

NEIGHBOURS = 20

_ROWS_OF_HELD = 256
_CELLS_OF_READ = 1 << 26
"""Pairs that are counted in one pass, where each pass reads all chunks: 2 GB at most."""

# Seconds, on one core and on a GPU of 2020; the choice is between ways that differ by far.
_COUNTING = 5e-9
_EACH_FEATURE = 1e-4
_RANKING_COUNTED = 2e-9
_RANKING_PRODUCTS = 4e-10
_OPERATIONS = 3e14
"""A second: multiplications of 16 bits with their additions, each pair of features once (2 / 2)."""

Update = Callable[[int], object]
"""Called with the number of features done since the last call."""


class FeatureNeighbours(NamedTuple):
    """Neighbours ordered by (neuron_index, rank): Jaccard index descending, ties to the lower index; E in all."""

    neuron_index: np.ndarray
    """int64 [E]"""
    rank: np.ndarray
    """int64 [E], from 0."""
    other: np.ndarray
    """int64 [E]"""
    counts: np.ndarray
    """int64 [E]: tokens on which both fire; pairs that never do are not there."""
    jaccard: np.ndarray
    """float64 [E]: ``counts`` of the tokens on which either fires."""
    pmi: np.ndarray
    """float64 [E]: log2 of how many times more often both fire than if they were independent."""


def choose_products(totals: Totals, device: torch.device) -> bool:
    """Whether dense products on the device are sooner than counting pairs on a CPU: F decides, and how many features
    fire on a token.

    Estimates, for 2^20 tokens of 64 firings (4.3 billion pairs): at F = 16,384 products 1 s, counting 24 s; at
    F = 131,072 60 s and 70 s; beyond, counting.
    """
    if device.type != "cuda":
        return False
    num_features = float(len(totals.firings))
    products = num_features**2 * (totals.tokens / _OPERATIONS + _RANKING_PRODUCTS)
    counting = totals.pairs * _COUNTING + num_features * (_EACH_FEATURE + num_features * _RANKING_COUNTED)
    return products < counting


def feature_neighbours(
    groups: Groups,
    totals: Totals,
    device: torch.device,
    top: int = NEIGHBOURS,
    update: Update = lambda _: None,
    *,
    products: bool | None = None,
    side: int = TILE_FEATURES,
) -> FeatureNeighbours:
    """The ``top`` strongest neighbours of every feature among all pairs.

    Counts are whole numbers however they are found, so that both ways give the same bits; ``products`` chooses one of
    them, ``choose_products`` by default, in tiles of ``side`` features (``side_within``). Memory: see ``products`` and
    ``counting``, and 24 bytes a neighbour.
    """
    products = choose_products(totals, device) if products is None else products
    if products:
        kept = _by_products(groups, totals, device, top, side, update).kept()
    else:
        kept = _by_counting(groups, totals, top, update).kept()
    rank = rank_within(kept.feature, len(totals.firings))
    feature, other, count, jaccard = (column.cpu().numpy() for column in kept)
    pmi = _pmi(count, totals.firings[feature], totals.firings[other], totals.tokens)
    return FeatureNeighbours(feature, rank.cpu().numpy(), other, count, jaccard, pmi)


def _pmi(count: np.ndarray, firings: np.ndarray, other_firings: np.ndarray, tokens: int) -> np.ndarray:
    """float64; the ratio first, so that features that always fire have exactly 0."""
    return np.log2(count / firings * (tokens / other_firings))


def _by_products(
    groups: Groups, totals: Totals, device: torch.device, top: int, side: int, update: Update
) -> Strongest:
    num_features = len(totals.firings)
    firings = torch.from_numpy(totals.firings).to(device)
    strongest = Strongest(num_features, top, device)
    todo = tiles(num_features, side)
    for number, tile in enumerate(todo):
        add_products(groups, tile, firings, strongest)
        update(num_features * (number + 1) // len(todo) - num_features * number // len(todo))
    return strongest


def _by_counting(groups: Groups, totals: Totals, top: int, update: Update) -> Strongest:
    num_features = len(totals.firings)
    strongest = Strongest(num_features, top, torch.device("cpu"))
    step = _ROWS_OF_HELD if groups.is_held else max(_ROWS_OF_HELD, _CELLS_OF_READ // num_features)
    for start in range(0, num_features, step):
        rows = range(start, min(start + step, num_features))
        strongest.add(rows, count_pairs(groups, totals.firings, top, rows))
        update(len(rows))
    return strongest
