"""Samples of one document each, and samples of joined documents."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.corpora.packing import (
    PackedSample,
    distinct_samples,
    pack_concatenated,
    pack_documents,
)

BOS, EOS = 0, 1


def arrays(*documents: list[int]) -> list[np.ndarray]:
    return [np.array(own, dtype=np.int64) for own in documents]


def shown(samples: Any) -> list[tuple[list[int], int, int]]:
    return [(sample.token_ids.tolist(), sample.document, sample.first_token) for sample in samples]


def test_documents_are_cut_and_their_tails_kept() -> None:
    found = shown(pack_documents(arrays([2, 3, 4, 5, 6], [], [7]), 3, BOS))
    assert found == [([0, 2, 3], 0, 0), ([0, 4, 5], 0, 2), ([0, 6], 0, 4), ([0, 7], 2, 0)]


def test_a_document_that_is_cut_at_bos_gets_no_second_one() -> None:
    """GPT-2's BOS stands at the end of texts, and so may stand inside a document."""
    found = shown(pack_documents(arrays([2, 3, 0, 4, 5, 6]), 3, BOS))
    assert found == [([0, 2, 3], 0, 0), ([0, 4, 5], 0, 2), ([0, 6], 0, 5)]


def test_joined_documents_fill_every_sample_but_the_last() -> None:
    found = shown(pack_concatenated(arrays([2, 3, 4], [], [5, 6, 7], [8]), 4, BOS, EOS))
    # the first document ends with its sample: no separator stands there
    assert found == [([0, 2, 3, 4], 0, 0), ([0, 5, 6, 7], 2, 0), ([0, 8], 3, 0)]


def test_a_separator_stands_between_documents_of_a_sample() -> None:
    found = shown(pack_concatenated(arrays([2, 3], [4, 5, 6]), 5, BOS, EOS))
    assert found == [([0, 2, 3, 1, 4], 0, 0), ([0, 5, 6], 1, 1)]


def test_a_separator_may_be_the_last_token_of_a_sample() -> None:
    found = shown(pack_concatenated(arrays([2, 3], [4]), 4, BOS, EOS))
    assert found == [([0, 2, 3, 1], 0, 0), ([0, 4], 1, 0)]


def test_a_document_that_begins_with_the_token_gets_no_second_one() -> None:
    assert shown(pack_concatenated(arrays([0, 2], [0, 3]), 6, BOS, BOS)) == [([0, 2, 0, 3], 0, 0)]
    assert shown(pack_concatenated(arrays([2], [1, 3]), 6, None, EOS)) == [([2, 1, 3], 0, 0)]


def test_nothing_need_stand_between_documents() -> None:
    assert shown(pack_concatenated(arrays([2], [3, 4]), 2, None, None)) == [([2, 3], 0, 0), ([4], 1, 1)]


@pytest.mark.parametrize("max_length", [0, 1])
def test_no_room_for_text_is_an_error(max_length: int) -> None:
    with pytest.raises(CorpusError, match=f"max_length {max_length} leaves no room"):
        list(pack_concatenated(arrays([2]), max_length, BOS, EOS))


def by_tokens(documents: list[list[int]], length: int, bos: int | None, separator: int | None) -> list[list[int]]:
    """The same, one token after the other."""
    samples: list[list[int]] = [[]]
    for document in documents:
        for index, token in enumerate(document):
            if len(samples[-1]) == length:
                samples.append([])
            if index == 0 and samples[-1] and separator not in (None, token):
                samples[-1].append(int(separator or 0))
                if len(samples[-1]) == length:
                    samples.append([])
            if not samples[-1] and bos not in (None, token):
                samples[-1].append(int(bos or 0))
            samples[-1].append(token)
    return [sample for sample in samples if sample]


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=9), max_size=5),
    st.integers(2, 7),
    st.sampled_from([None, BOS]),
    st.sampled_from([None, BOS, EOS]),
)
def test_joining_equals_joining_token_by_token(
    documents: list[list[int]], length: int, bos: int | None, separator: int | None
) -> None:
    found = list(pack_concatenated(arrays(*documents), length, bos, separator))
    assert [sample.token_ids.tolist() for sample in found] == by_tokens(documents, length, bos, separator)
    for sample in found:
        text = documents[sample.document][sample.first_token]
        assert text in sample.token_ids[:2].tolist()


def test_duplicates_are_recognized_by_their_tokens_alone() -> None:
    samples = [PackedSample(np.array(own), number, 0) for number, own in enumerate([[1, 2], [1], [1, 2], [2, 1], [1]])]
    assert [sample.document for sample in distinct_samples(samples)] == [0, 1, 3]
