"""Equal parts of the maximum and quantiles: populations and draws equal a computation by hand over all samples."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from extraction_assets.engine.relations.ranges import FeatureRange, RangeKind, RangeRules, ranges_of_features
from extraction_assets.engine.relations.totals import count_totals
from extraction_assets.engine.selection.hashing import pair_hash, sample_keys
from extraction_assets_tests.engine.relations import oracle
from extraction_assets_tests.engine.relations.build import Corpus, groups_of, random_corpus

SEED = 7


def found_of(corpus: Corpus, kind: RangeKind, parts: int, examples: int = 2, **options: Any) -> dict[int, Any]:
    groups = groups_of(corpus, options.pop("bounds", None), group=options.pop("group", 1 << 20))
    rules = RangeRules({kind: parts}, examples, SEED)
    return dict(ranges_of_features(groups, count_totals(groups), rules, **options))


def hash_of(feature: int, sample: int) -> int:
    return int(pair_hash(sample_keys(SEED, torch.tensor([sample])), torch.tensor([feature])))


def by_hand(corpus: Corpus, kind: RangeKind, parts: int, examples: int) -> dict[int, list[tuple[Any, ...]]]:
    """Feature -> [(samples in a part, sample drawn, …)]"""
    expected = {}
    for feature, firings in enumerate(oracle.firings(corpus)):
        samples: dict[int, float] = defaultdict(float)
        for sample, _, value in firings:
            samples[sample] = max(samples[sample], value)
        members = defaultdict(list)
        ordered = sorted(samples, key=lambda sample: (samples[sample], sample))
        for rank, sample in enumerate(ordered):
            share = samples[sample] / max(samples.values())
            inside = [n for n in range(parts) if samples[sample] >= max(samples.values()) * n / parts]
            assert share > 0
            members[inside[-1] if kind == "maximum" else rank * parts // len(ordered)].append(sample)
        drawn = [
            (len(members[n]), *sorted(members[n], key=lambda sample: (hash_of(feature, sample), sample))[:examples])
            for n in sorted(members)
        ]
        if drawn:
            expected[feature] = drawn
    return expected


def plain(found: dict[int, list[FeatureRange]]) -> dict[int, list[tuple[Any, ...]]]:
    return {f: [(one.samples, *(d.sample_index for d in one.drawn)) for one in ranges] for f, ranges in found.items()}


@pytest.mark.parametrize("kind", ["maximum", "quantile"])
@pytest.mark.parametrize("parts", [1, 4, 10])
def test_populations_and_draws_equal_those_by_hand(kind: RangeKind, parts: int) -> None:
    corpus = random_corpus(2, density=0.1)
    assert plain(found_of(corpus, kind, parts)) == by_hand(corpus, kind, parts, 2)


@pytest.mark.parametrize("options", [{"bounds": [3, 7], "group": 1}, {"range_firings": 20}])
def test_chunks_and_ranges_of_features_change_nothing(options: dict[str, Any]) -> None:
    corpus = random_corpus(3)
    assert found_of(corpus, "quantile", 3, **options) == found_of(corpus, "quantile", 3)


def test_a_draw_has_the_firings_of_its_sample_strongest_first() -> None:
    dense = np.array([[[1.0], [3.0], [0.0], [3.0]]], np.float32)
    corpus = Corpus(dense, np.zeros((1, 4), np.int64), np.ones((1, 4), bool), np.ones((1, 4), bool))
    ((one,),) = found_of(corpus, "maximum", 2).values()
    assert one == FeatureRange("maximum", 1.5, 3.0, 1, [(0, 3.0, [1, 3, 0], [3.0, 3.0, 1.0])])
