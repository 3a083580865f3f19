"""What a reader wants to know of a feature before its examples: dead, dense, duplicate, always first, one token."""

from typing import Any, Literal, NamedTuple

import numpy as np

from extraction_assets.engine.relations.neighbours import FeatureNeighbours
from extraction_assets.engine.relations.top_tokens import FeatureTokens
from extraction_assets.engine.relations.totals import Totals

FlagName = Literal["dead", "dense", "duplicate", "first_position", "one_token"]

DENSE_SHARE = 0.1
"""A feature is dense if it fires on more than this share of the counted tokens of the corpus."""

DUPLICATE_JACCARD = 0.95
"""A feature is a duplicate if one of a lower index has at least this Jaccard index with it."""

ALWAYS_SHARE = 0.99
"""At least this share of a feature's firings is "always": at the first counted position of its sample, or on one
token."""

LEAST_FIRINGS = 10
"""Fewer firings in what is looked at show no pattern: no flag but ``dead`` and ``dense`` is given."""


class Flag(NamedTuple):
    """One flag of one feature."""

    neuron_index: int
    name: FlagName
    detail: dict[str, Any]
    """The numbers that it is given for."""


def feature_flags(
    token_counts: np.ndarray, tokens_seen: int, totals: Totals, tokens: FeatureTokens, neighbours: FeatureNeighbours
) -> list[Flag]:
    """All flags, by (name, feature).

    ``token_counts``, int64 [F], and ``tokens_seen`` are those of the whole corpus, for ``dead`` and ``dense``; the
    others come from the firings that were looked at. ``tokens`` are those at the firings.
    """
    patterns = [*_duplicates(totals, neighbours), *_first_position(totals), *_one_token(totals, tokens)]
    return [*_dead(token_counts, tokens_seen), *_dense(token_counts, tokens_seen), *patterns]


def _dead(token_counts: np.ndarray, tokens_seen: int) -> list[Flag]:
    return [Flag(index, "dead", {"tokens": tokens_seen}) for index in np.flatnonzero(token_counts == 0).tolist()]


def _dense(token_counts: np.ndarray, tokens_seen: int) -> list[Flag]:
    found = np.flatnonzero(token_counts > DENSE_SHARE * tokens_seen).tolist()
    return [Flag(index, "dense", {"share": int(token_counts[index]) / tokens_seen}) for index in found]


def _duplicates(totals: Totals, neighbours: FeatureNeighbours) -> list[Flag]:
    """Of a feature's strongest neighbours that are near enough, it is a duplicate of the lowest index."""
    feature, other, jaccard = neighbours.neuron_index, neighbours.other, neighbours.jaccard
    near = (jaccard >= DUPLICATE_JACCARD) & (other < feature) & (totals.firings[feature] >= LEAST_FIRINGS)
    found: dict[int, Flag] = {}
    for place in np.flatnonzero(near).tolist():
        index, of = int(feature[place]), int(other[place])
        if index not in found or of < found[index].detail["of"]:
            detail = {"of": of, "jaccard": float(jaccard[place]), "count": int(neighbours.counts[place])}
            found[index] = Flag(index, "duplicate", detail)
    return list(found.values())


def _first_position(totals: Totals) -> list[Flag]:
    found = _always(totals.first_firings, totals.firings)
    return [
        Flag(index, "first_position", _share(totals.first_firings[index], totals.firings[index])) for index in found
    ]


def _one_token(totals: Totals, tokens: FeatureTokens) -> list[Flag]:
    best = tokens.rank == 0
    found = _always(tokens.counts[best], totals.firings[tokens.neuron_index[best]])
    flags = []
    for place in np.flatnonzero(best)[found].tolist():
        index, count = int(tokens.neuron_index[place]), int(tokens.counts[place])
        detail = {"token_id": int(tokens.token_id[place]), **_share(count, totals.firings[index])}
        flags.append(Flag(index, "one_token", detail))
    return flags


def _always(counts: np.ndarray, firings: np.ndarray) -> list[int]:
    found: list[int] = np.flatnonzero((firings >= LEAST_FIRINGS) & (counts >= ALWAYS_SHARE * firings)).tolist()
    return found


def _share(count: int, firings: int) -> dict[str, Any]:
    return {"count": int(count), "share": int(count) / int(firings)}
