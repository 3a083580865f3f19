"""Tokens as numbers of texts: each sample's own, however often it is asked for, and no more kept than there is room."""

from itertools import pairwise

import numpy as np
import sqlalchemy as sa

from extraction_assets.exports.formats.shared.token_codes import TokenCodes
from extraction_assets.exports.samples import SampleTexts
from extraction_assets_tests.browser.small_results import SAMPLES
from extraction_assets_tests.exports.test_samples import queries_of


def texts_of(codes: TokenCodes, indices: list[int]) -> list[list[str]]:
    lists = codes.take(np.array(indices, dtype=np.int64)).lists()
    texts = codes.texts(lists.values.to_numpy()).to_pylist()
    offsets = lists.offsets.to_pylist()
    return [texts[first:stop] for first, stop in pairwise(offsets)]


def test_samples_come_in_the_order_in_which_they_are_asked_for(small: sa.Connection) -> None:
    codes = TokenCodes(SampleTexts(small, corpus_id=1), "small/one", max_length=11)
    for indices in ([8, 7, 8], [], [10, 8]):
        assert texts_of(codes, indices) == [SAMPLES[index][2] for index in indices]


def test_the_latest_samples_are_kept_as_long_as_there_is_room(small: sa.Connection) -> None:
    codes, queries = TokenCodes(SampleTexts(small, 1), "small/one", max_length=11, kept_tokens=12), list[str]()
    for index in (7, 8):
        texts_of(codes, [index])
    queries_of(small, queries)
    assert texts_of(codes, [8]) == [SAMPLES[8][2]]
    assert queries == []
    assert texts_of(codes, [7]) == [SAMPLES[7][2]]
    assert len(queries) == 1


def test_a_dictionary_holds_the_texts_that_occur_in_their_order(small: sa.Connection) -> None:
    codes = TokenCodes(SampleTexts(small, corpus_id=1), "small/one", max_length=11)
    codes.take(np.array([7, 8, 9, 10]))
    lists = codes.take(np.array([10])).lists()
    assert codes.texts(lists.values.to_numpy()).dictionary.to_pylist() == sorted(set(SAMPLES[10][2]))
