"""Relations by brute force, in plain Python over every position; nothing here calls the engine."""

import math
from collections import defaultdict
from typing import Any

from extraction_assets_tests.engine.relations.build import Corpus

Firing = tuple[int, int, float]
"""(sample, position, activation)"""


def firings(corpus: Corpus) -> list[list[Firing]]:
    """Of each feature, in the order of the corpus."""
    places = [
        (s, p) for s in range(corpus.dense.shape[0]) for p in range(corpus.dense.shape[1]) if corpus.counted[s, p]
    ]
    return [
        [(s, p, float(corpus.dense[s, p, f])) for s, p in places if corpus.dense[s, p, f] > 0]
        for f in range(corpus.dense.shape[2])
    ]


def next_token(corpus: Corpus, sample: int, position: int) -> int | None:
    if position + 1 == corpus.mask.shape[1] or not corpus.mask[sample, position + 1]:
        return None
    return int(corpus.token_ids[sample, position + 1])


def token_at(corpus: Corpus, sample: int, position: int, place: str) -> int | None:
    return int(corpus.token_ids[sample, position]) if place == "firing" else next_token(corpus, sample, position)


def top_tokens(corpus: Corpus, place: str, top: int) -> dict[int, list[tuple[int, int, float, float]]]:
    """Feature -> [(token id, count, mean, share)], the most frequent first."""
    there: dict[int, int] = defaultdict(int)
    for sample in range(corpus.counted.shape[0]):
        for position in range(corpus.counted.shape[1]):
            if corpus.counted[sample, position] and (token := token_at(corpus, sample, position, place)) is not None:
                there[token] += 1
    found = {}
    for feature, all_firings in enumerate(firings(corpus)):
        values: dict[int, list[float]] = defaultdict(list)
        for sample, position, value in all_firings:
            if (token := token_at(corpus, sample, position, place)) is not None:
                values[token].append(value)
        ordered = sorted(values.items(), key=lambda item: (-len(item[1]), item[0]))[:top]
        if ordered:
            found[feature] = [(t, len(v), math.fsum(v) / len(v), len(v) / there[t]) for t, v in ordered]
    return found


def neighbours(corpus: Corpus, top: int) -> dict[int, list[tuple[int, int, float, float]]]:
    """Feature -> [(other, count, Jaccard index, PMI)], the strongest first."""
    places = [{(s, p) for s, p, _ in one} for one in firings(corpus)]
    tokens = int(corpus.counted.sum())
    found: dict[int, Any] = {}
    for feature, here in enumerate(places):
        pairs = [
            (other, len(both), len(both) / len(here | there), math.log2(len(both) * tokens / (len(here) * len(there))))
            for other, there in enumerate(places)
            if other != feature and (both := here & there)
        ]
        if pairs:
            found[feature] = sorted(pairs, key=lambda pair: (-pair[2], pair[0]))[:top]
    return found
