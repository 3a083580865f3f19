"""Small corpora with firings, whole and in parts, for the tests of relations."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from extraction_assets.engine.relations.parts import Groups, TokenPart, token_part
from extraction_assets.engine.selection.sparse import dense_to_sparse, to_rows
from extraction_assets.engine.shapes import Samples


class Corpus(NamedTuple):
    """Everything about some samples, dense."""

    dense: np.ndarray
    """float32 [n, T, F], 0 at padding; at positions that do not count it may be positive."""
    token_ids: np.ndarray
    """int64 [n, T]"""
    mask: np.ndarray
    """bool [n, T]"""
    counted: np.ndarray
    """bool [n, T]"""


def random_corpus(
    seed: int, samples: int = 12, positions: int = 9, features: int = 30, vocabulary: int = 7, density: float = 0.3
) -> Corpus:
    """Few tokens and few values, so that ties are everywhere; feature 3 is dead, 5 fires wherever 4 does."""
    generator = np.random.default_rng(seed)
    shape = (samples, positions)
    mask = np.arange(positions) < generator.integers(0, positions + 1, samples)[:, None]
    counted = mask & (generator.random(shape) < 0.8)
    values = generator.integers(1, 9, (*shape, features)).astype(np.float32) / 3
    dense = np.where(generator.random((*shape, features)) < density, values, np.float32(0))
    if features > 5:
        dense[:, :, 3] = 0
        dense[:, :, 5] = dense[:, :, 4] * 2
    dense = np.where(mask[:, :, None], dense, np.float32(0))
    return Corpus(dense, generator.integers(0, vocabulary, shape), mask, counted)


def part_of(corpus: Corpus, start: int, stop: int) -> TokenPart:
    """Some samples as the engine takes them."""
    dense, *arrays = (torch.from_numpy(array[start:stop]) for array in corpus)
    return token_part(to_rows(dense_to_sparse(dense)), Samples(*arrays, start))


def groups_of(corpus: Corpus, bounds: list[int] | None = None, *, group: int = 1 << 20, held: int = 1 << 20) -> Groups:
    """The corpus in chunks between neighbouring bounds."""
    edges = [0, *(bounds or []), len(corpus.dense)]

    def read() -> Iterator[TokenPart]:
        return (part_of(corpus, start, stop) for start, stop in pairwise(edges))

    return Groups(read, group, held)


def random_part(features: int, tokens: int, firings: int, seed: int = 0) -> TokenPart:
    """Many tokens with at most so many firings each, made without a dense array; frequent features and rare ones."""
    generator = np.random.default_rng(seed)
    drawn = np.sort((generator.random((tokens, firings)) ** 2 * features).astype(np.int32), axis=1)
    first = np.concatenate([np.ones((tokens, 1), bool), drawn[:, 1:] != drawn[:, :-1]], axis=1)
    ids = generator.integers(0, 1000, tokens).astype(np.int32)
    return TokenPart(
        np.concatenate([[0], np.cumsum(first.sum(axis=1))]),
        drawn[first],
        generator.random(int(first.sum()), dtype=np.float32) + np.float32(0.5),
        ids,
        np.append(ids[1:], -1).astype(np.int32),
        np.ones(tokens, bool),
        np.arange(tokens) % 128 == 0,
        np.arange(-(-tokens // 128)),
        features,
    )
