"""All relations of an SAE's features."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from extraction_assets.engine.relations.flags import Flag
from extraction_assets.engine.relations.neighbours import FeatureNeighbours
from extraction_assets.engine.relations.top_tokens import FeatureTokens, Place
from extraction_assets.engine.relations.totals import Totals


class Relations(NamedTuple):
    """What was counted over the samples that were looked at."""

    totals: Totals
    tokens: dict[Place, FeatureTokens]
    neighbours: FeatureNeighbours
    flags: list[Flag]


def join_tokens(ranges: Iterable[FeatureTokens]) -> FeatureTokens:
    """Top tokens of consecutive ranges of features as one."""
    return FeatureTokens(*(np.concatenate(columns) for columns in zip(*ranges, strict=True)))
