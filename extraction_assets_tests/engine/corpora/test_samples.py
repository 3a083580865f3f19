"""Which positions of a tokenized corpus count."""

import numpy as np
import pytest

from extraction_assets.engine.corpora.samples import counted_positions, samples_of
from extraction_assets.engine.corpora.tokenize import TokenizedCorpus
from extraction_assets.settings import CorpusSettings

# Two samples of six positions: a special token first, one in the middle; the second has two positions of padding.
IDS = np.array([[0, 5, 6, 0, 7, 8], [0, 5, 6, 7, 0, 0]], dtype=np.int32)
ATTENTION = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]], dtype=bool)
SPECIAL = (IDS == 0) & ATTENTION


def _arrays() -> TokenizedCorpus:
    documents, first = np.zeros(2, dtype=np.int32), np.zeros(2, dtype=np.int64)
    return TokenizedCorpus(IDS, ATTENTION, SPECIAL, documents, first, ["one.txt"])


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({}, ["_xx_xx", "_xxx__"]),
        ({"count_special_tokens": True}, ["xxxxxx", "xxxx__"]),
        ({"exclude_first_positions": 1}, ["_xx_xx", "_xxx__"]),
        ({"exclude_first_positions": 2}, ["__x_xx", "__xx__"]),
        ({"exclude_first_positions": 1, "count_special_tokens": True}, ["_xxxxx", "_xxx__"]),
        ({"exclude_positions": (2, 5)}, ["_x__x_", "_x_x__"]),
    ],
    ids=str,
)
def test_padding_special_tokens_and_excluded_positions_do_not_count(changes: dict, counted: list[str]) -> None:
    settings = CorpusSettings(source="texts", max_length=6, **changes)
    found = counted_positions(_arrays(), slice(0, 2), settings)
    assert ["".join("_x"[int(one)] for one in row) for row in found] == counted
    assert (_arrays().attention_mask == ATTENTION).all()


def test_samples_are_numbered_from_the_corpus_first_one() -> None:
    samples = samples_of(_arrays(), slice(1, 2), 100, CorpusSettings(source="texts", max_length=6))
    assert samples.first_sample == 101
    assert samples.token_ids.tolist() == IDS[1:].tolist()
    assert samples.attention_mask.tolist() == ATTENTION[1:].tolist()
