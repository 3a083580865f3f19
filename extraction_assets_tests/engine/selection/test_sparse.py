"""Sparse features: every way there has a way back."""

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.engine.selection.sparse import (
    concatenate_rows,
    dense_to_sparse,
    keep_counted,
    take_rows,
    take_samples,
    to_dense,
    to_rows,
)
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.strategies import Drawn, encoded


def firing(drawn: Drawn) -> torch.Tensor:
    """Dense features with nothing but their firings."""
    return torch.from_numpy(np.where(drawn.dense > 0, drawn.dense, np.float32(0)))


@given(encoded())
def test_dense_to_sparse_and_back_keeps_every_firing(drawn: Drawn) -> None:
    dense = firing(drawn)
    assert torch.equal(to_dense(dense_to_sparse(torch.from_numpy(drawn.dense))), dense)
    assert_same(dense_to_sparse(to_dense(dense_to_sparse(dense))), dense_to_sparse(dense))


def test_entries_stand_in_the_order_of_token_and_feature() -> None:
    sparse = dense_to_sparse(torch.tensor([[[0.0, 2.0], [3.0, 0.0]], [[5.0, 4.0], [-0.0, float("nan")]]]))
    assert sparse.tokens.tolist() == [0, 1, 2, 2]
    assert sparse.features.tolist() == [1, 0, 0, 1]
    assert sparse.values.tolist() == [2, 3, 5, 4]
    assert sparse[3:] == (2, 2, 2)


@given(encoded())
def test_keep_counted_blanks_the_other_positions(drawn: Drawn) -> None:
    kept = keep_counted(dense_to_sparse(torch.from_numpy(drawn.dense)), torch.from_numpy(drawn.counted))
    assert torch.equal(to_dense(kept), firing(drawn).where(torch.from_numpy(drawn.counted)[:, :, None], 0.0))


@given(encoded(), st.data())
def test_taken_samples_are_those_of_the_dense_slice(drawn: Drawn, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(drawn.dense)))
    stop = data.draw(st.integers(start, len(drawn.dense)))
    dense = firing(drawn)
    assert_same(take_samples(dense_to_sparse(dense), start, stop), dense_to_sparse(dense[start:stop]))


# Compressed rows


@given(encoded())
def test_compressed_rows_and_back_are_the_same(drawn: Drawn) -> None:
    sparse = dense_to_sparse(firing(drawn))
    rows = to_rows(sparse)
    assert len(rows.row_pointers) == sparse.num_samples * sparse.num_positions + 1
    assert (rows.row_pointers.dtype, rows.feature_ids.dtype) == (torch.int64, torch.int32)
    assert rows[3:] == sparse[3:]
    assert_same(take_rows(rows, 0, rows.num_samples), sparse)


@given(encoded(), st.data())
def test_taken_rows_are_those_of_the_dense_slice(drawn: Drawn, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(drawn.dense)))
    stop = data.draw(st.integers(start, len(drawn.dense)))
    dense = firing(drawn)
    assert_same(take_rows(to_rows(dense_to_sparse(dense)), start, stop), dense_to_sparse(dense[start:stop]))


@given(encoded(), st.lists(st.integers(0, 6), max_size=3))
def test_rows_of_parts_concatenated_are_those_of_the_whole(drawn: Drawn, cuts: list[int]) -> None:
    sparse, total = dense_to_sparse(firing(drawn)), len(drawn.dense)
    bounds = sorted([0, total, *(min(cut, total) for cut in cuts)])  # some parts are empty
    parts = [to_rows(take_samples(sparse, a, b)) for a, b in pairwise(bounds)]
    assert_same(concatenate_rows(parts), to_rows(sparse))


def test_compressed_rows_by_hand() -> None:
    rows = to_rows(dense_to_sparse(torch.tensor([[[0.0, 0.0], [1.0, 2.0], [0.0, 3.0]]])))
    assert rows.row_pointers.tolist() == [0, 0, 2, 3]
    assert rows.feature_ids.tolist() == [0, 1, 1]
    assert rows.values.tolist() == [1, 2, 3]
    assert rows[3:] == (1, 3, 2)


def test_concatenated_rows_by_hand() -> None:
    one, other = (to_rows(dense_to_sparse(torch.tensor([row]))) for row in ([[0.0, 5.0]], [[6.0, 7.0]]))
    both = concatenate_rows([one, other])
    assert (both.row_pointers.tolist(), both.feature_ids.tolist()) == ([0, 1, 3], [1, 0, 1])
    assert (both.values.tolist(), both.num_samples) == ([5, 6, 7], 2)
