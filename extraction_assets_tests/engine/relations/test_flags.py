"""Each flag is given for what it says, and for nothing near it."""

from typing import Any

import numpy as np
import torch

from extraction_assets.engine.relations.flags import Flag, feature_flags
from extraction_assets.engine.relations.neighbours import feature_neighbours
from extraction_assets.engine.relations.top_tokens import feature_tokens
from extraction_assets.engine.relations.totals import count_totals
from extraction_assets_tests.engine.relations.build import Corpus, groups_of

SAMPLES, POSITIONS = 40, 5


def flags_of(**columns: np.ndarray) -> list[Flag]:
    """Flags of features of which each fires where its column, bool [n, T], is True; token ids are 0 to 4 by position,
    and the first position does not count."""
    shape = (SAMPLES, POSITIONS)
    dense = np.stack(list(columns.values()), axis=2).astype(np.float32)
    ids, counted = np.broadcast_to(np.arange(POSITIONS), shape).copy(), np.ones(shape, bool)
    counted[:, 0] = False
    groups = groups_of(Corpus(dense, ids, np.ones(shape, bool), counted))
    totals = count_totals(groups)
    (tokens,) = (found["firing"] for found in feature_tokens(groups, totals))
    neighbours = feature_neighbours(groups, totals, torch.device("cpu"))
    return feature_flags(totals.firings, totals.tokens, totals, tokens, neighbours)


def named(flags: list[Flag], name: str) -> dict[int, dict[str, Any]]:
    return {flag.neuron_index: flag.detail for flag in flags if flag.name == name}


def firing(*positions: int, samples: int = SAMPLES) -> np.ndarray:
    column = np.zeros((SAMPLES, POSITIONS), bool)
    column[:samples, list(positions)] = True
    return column


def test_dead_is_what_never_fires_at_a_counted_position() -> None:
    assert named(flags_of(none=firing(), uncounted=firing(0), once=firing(2, samples=1)), "dead").keys() == {0, 1}


def test_dense_is_more_than_a_tenth_of_all_tokens() -> None:
    flags = flags_of(tenth=firing(2, samples=16), more=firing(2, samples=17))  # of 160 counted tokens
    assert named(flags, "dense") == {1: {"share": 17 / 160}}


def test_a_duplicate_names_the_first_feature_that_fires_with_it() -> None:
    near = firing(2, 3)
    near[0, 4] = True  # 80 of 81 tokens
    flags = flags_of(one=firing(2, 3), other=firing(2), copy=firing(2, 3), near=near)
    assert named(flags, "duplicate") == {
        2: {"of": 0, "jaccard": 1.0, "count": 80},
        3: {"of": 0, "jaccard": 80 / 81, "count": 80},
    }


def test_always_at_the_first_position_is_the_first_that_counts() -> None:
    flags = flags_of(first=firing(1), second=firing(2), both=firing(1, 2))
    assert named(flags, "first_position") == {0: {"count": 40, "share": 1.0}}


def test_one_token_is_what_fires_on_no_other() -> None:
    flags = flags_of(one=firing(3), two=firing(3, 4))
    assert named(flags, "one_token") == {0: {"token_id": 3, "count": 40, "share": 1.0}}


def test_few_firings_show_no_pattern() -> None:
    flags = flags_of(one=firing(1, samples=9), copy=firing(1, samples=9))
    assert flags == []
