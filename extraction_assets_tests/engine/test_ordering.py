"""Orders and segments: exact on ties, and where the key is wider than 63 bits."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.engine.ordering import (
    ascending_bits,
    bits_for,
    descending_bits,
    gather_segments,
    offsets_of,
    order_by,
    rank_within,
    starts_of,
)


@st.composite
def columns(draw: st.DrawFn) -> list[tuple[np.ndarray, int]]:
    """One to four columns of 1 to 63 bits with few distinct values, the widest value among them."""
    rows = draw(st.integers(0, 12))
    drawn = []
    for width in draw(st.lists(st.integers(1, 63), min_size=1, max_size=4)):
        largest = 2**width - 1
        values = st.sampled_from([0, 1, largest // 2, largest])
        drawn.append((draw(hnp.arrays(np.int64, rows, elements=values)), width))
    return drawn


@pytest.mark.slow
@given(columns())
def test_order_by_is_the_stable_lexicographic_order(drawn: list[tuple[np.ndarray, int]]) -> None:
    order = order_by(*((torch.from_numpy(column), width) for column, width in drawn))
    expected = np.lexsort([column for column, _ in reversed(drawn)])  # lexsort wants the most significant key last
    assert order.tolist() == expected.tolist()


@given(columns())
def test_order_by_of_runs_is_the_same_order(drawn: list[tuple[np.ndarray, int]]) -> None:
    tensors = [(torch.from_numpy(column), width) for column, width in drawn]
    assert torch.equal(order_by(*tensors, in_runs=True), order_by(*tensors))


def test_order_by_of_two_full_columns_needs_two_sorts_and_keeps_the_first_in_front() -> None:
    first = torch.tensor([2**63 - 1, 0, 0, 2**63 - 1])
    second = torch.tensor([5, 2**40, 3, 4])
    assert order_by((first, 63), (second, 41)).tolist() == [2, 1, 3, 0]


def test_order_by_sums_to_63_bits_in_one_key() -> None:
    first, second = torch.tensor([1, 0, 1, 0]), torch.tensor([2**62 - 1, 7, 0, 2**62 - 1])
    assert order_by((first, 1), (second, 62)).tolist() == [1, 3, 2, 0]


def test_order_by_of_64_bits_does_not_touch_the_sign() -> None:
    first, second = torch.tensor([2**32 - 1, 0, 2**31, 1]), torch.tensor([0, 2**32 - 1, 5, 0])
    assert order_by((first, 32), (second, 32)).tolist() == [1, 3, 2, 0]


def test_order_by_refuses_a_column_wider_than_the_key() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        order_by((torch.tensor([1]), 64))


@given(st.lists(st.floats(2.0**-149, 2.0**127, width=32), min_size=1))
def test_bits_of_positive_floats_order_like_the_floats(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    expected = np.argsort(tensor.numpy(), kind="stable").tolist()
    assert torch.sort(ascending_bits(tensor), stable=True).indices.tolist() == expected
    assert torch.equal(descending_bits(tensor), 2**31 - 1 - ascending_bits(tensor))


def test_bits_of_a_strided_column_are_its_own() -> None:
    table = torch.tensor([[1.0, 9.0], [0.5, 9.0]])
    assert ascending_bits(table[:, 0]).tolist() == [0x3F800000, 0x3F000000]


@pytest.mark.parametrize(("count", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (2**20, 20), (2**20 + 1, 21)])
def test_bits_for_holds_every_number_below_count(count: int, bits: int) -> None:
    assert bits_for(count) == bits


def test_rank_within_counts_from_zero_in_each_group() -> None:
    assert rank_within(torch.tensor([1, 1, 1, 4, 5, 5]), 7).tolist() == [0, 1, 2, 0, 0, 1]


def test_rank_within_no_rows_is_empty() -> None:
    assert rank_within(torch.zeros(0, dtype=torch.int64), 3).tolist() == []


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 4))
def test_starts_are_those_of_numpy(drawn: list[int], more: int) -> None:
    groups, num_groups = np.sort(np.array(drawn, dtype=np.int64)), max(drawn, default=0) + more  # the last ones empty
    starts = starts_of(torch.from_numpy(groups), num_groups)
    assert starts.dtype == torch.int64
    assert starts.tolist() == np.searchsorted(groups, np.arange(num_groups + 1)).tolist()
    assert starts.diff().tolist() == np.bincount(groups, minlength=num_groups).tolist()


def test_starts_by_hand() -> None:
    assert starts_of(torch.tensor([1, 1, 4]), 6).tolist() == [0, 0, 2, 2, 2, 3, 3]
    assert starts_of(torch.zeros(0, dtype=torch.int64), 2).tolist() == [0, 0, 0]


def test_gather_segments_keeps_empty_segments_and_the_chosen_order() -> None:
    rows, offsets = gather_segments(offsets_of(torch.tensor([2, 0, 3])), torch.tensor([2, 1, 0]))
    assert rows.tolist() == [2, 3, 4, 0, 1]
    assert offsets.tolist() == [0, 3, 3, 5]
