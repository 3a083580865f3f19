"""The largest entries of each row against sorting whole rows in Python."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.engine.directions.top import top_of_rows


def by_sorting(values: torch.Tensor, k: int, sign: int) -> list[list[tuple[float, int]]]:
    return [
        [(value, column) for column, value in sorted(enumerate(row), key=lambda one: (sign * one[1], one[0]))[:k]]
        for row in values.tolist()
    ]


@given(st.integers(1, 5), st.integers(1, 60), st.integers(1, 25), st.integers(1, 9), st.integers(0, 999), st.booleans())
def test_values_are_in_order_and_ties_ascend_by_column(
    n: int, width: int, k: int, levels: int, seed: int, largest: bool
) -> None:
    values = torch.randint(0, levels, (n, width), generator=torch.Generator().manual_seed(seed)).float()
    found, columns = top_of_rows(values, k, largest=largest)
    pairs = [list(zip(*row, strict=True)) for row in zip(found.tolist(), columns.tolist(), strict=True)]
    assert pairs == by_sorting(values, k, -1 if largest else 1)


def test_infinities_are_ordered_too() -> None:
    found, columns = top_of_rows(torch.tensor([[-torch.inf, 1.0, -torch.inf, -torch.inf]]), 3)
    assert found.tolist() == [[1.0, -torch.inf, -torch.inf]]
    assert columns.tolist() == [[1, 0, 2]]
