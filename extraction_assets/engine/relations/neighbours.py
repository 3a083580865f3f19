"""Co-firing neighbours: counts, Jaccard index and PMI over all pairs of features, the strongest of each feature."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch

from extraction_assets.engine.ordering import rank_within
from extraction_assets.engine.relations.counting import count_pairs, row_ranges
from extraction_assets.engine.relations.parts import Groups
from extraction_assets.engine.relations.products import TILE_FEATURES, add_products, tiles
from extraction_assets.engine.relations.scattering import add_scattered
from extraction_assets.engine.relations.strongest import Strongest
from extraction_assets.engine.relations.totals import Totals

NEIGHBOURS = 20

_ROWS_OF_HELD = 256

# Seconds, on one core and on an H100; the choice is between ways that differ by far.
_COUNTING = 5e-9
_EACH_FEATURE = 1e-4
_RANKING_COUNTED = 2e-9
_RANKING_DENSE = 1.1e-10
_SCATTERING = 1.1e-10
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


Way = Literal["counted", "products", "scattered"]
"""How pairs are counted: feature by feature on a CPU; by dense products, or pair by pair into a table, on a GPU."""


def choose_way(totals: Totals, device: torch.device) -> Way:
    """The soonest way on the device: F decides, and how many features fire on a token.

    Estimates, for 2^20 tokens of 64 firings (4.3 billion pairs): at F = 16,384 scattered 0.5 s, products 1 s, counted
    24 s; at F = 131,072 2 s, 62 s and 43 s. Of 256 firings (69 billion pairs), at F = 16,384 scattered 8 s, products
    1 s.
    """
    if device.type != "cuda":
        return "counted"
    num_features = float(len(totals.firings))
    ranking, others = num_features**2 * _RANKING_DENSE, float(np.minimum(totals.together, num_features).sum())
    seconds: dict[Way, float] = {
        "counted": totals.pairs * _COUNTING + num_features * _EACH_FEATURE + others * _RANKING_COUNTED,
        "products": num_features**2 * totals.tokens / _OPERATIONS + ranking,
        "scattered": totals.pairs * _SCATTERING + ranking,
    }
    return min(seconds, key=seconds.__getitem__)


class Room(NamedTuple):
    """How much of the table of all pairs is in memory at once."""

    side: int = TILE_FEATURES
    """Of a tile of products, in features (``products.side_within``)."""
    rows: int = 4 * TILE_FEATURES
    """Features of which pairs are scattered at once (``scattering.rows_within``)."""
    cells: int = 1 << 26
    """Pairs that are counted at once on the CPU where each pass reads all chunks (``counting.cells_within``)."""


def feature_neighbours(
    groups: Groups,
    totals: Totals,
    device: torch.device,
    top: int = NEIGHBOURS,
    update: Update = lambda _: None,
    *,
    way: Way | None = None,
    room: Room | None = None,
) -> FeatureNeighbours:
    """The ``top`` strongest neighbours of every feature among all pairs.

    Counts are whole numbers however they are found, so that all ways give the same bits; ``way`` chooses one of them,
    ``choose_way`` by default. Memory: ``room``, and 24 bytes a neighbour.
    """
    room, way = room or Room(), way or choose_way(totals, device)
    if way == "counted":
        kept = _by_counting(groups, totals, top, room.cells, update).kept()
    elif way == "products":
        kept = _by_products(groups, totals, device, top, room.side, update).kept()
    else:
        kept = _by_scattering(groups, totals, device, top, room.rows, update).kept()
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


def _by_scattering(
    groups: Groups, totals: Totals, device: torch.device, top: int, rows: int, update: Update
) -> Strongest:
    num_features = len(totals.firings)
    firings = torch.from_numpy(totals.firings).to(device)
    strongest = Strongest(num_features, top, device)
    for start in range(0, num_features, rows):
        part = range(start, min(start + rows, num_features))
        add_scattered(groups, part, firings, strongest)
        update(len(part))
    return strongest


def _by_counting(groups: Groups, totals: Totals, top: int, cells: int, update: Update) -> Strongest:
    num_features = len(totals.firings)
    strongest = Strongest(num_features, top, torch.device("cpu"))
    for rows in row_ranges(totals, cells, *([_ROWS_OF_HELD] if groups.is_held else [])):
        strongest.add(rows, count_pairs(groups, totals.firings, top, rows))
        update(len(rows))
    return strongest
