"""From the product xW to firings, against the formulas in float64 on numbers that float32 holds exactly."""

from typing import NamedTuple

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from extraction_assets.engine.saes.activation import (
    ActivationFunction,
    Firings,
    Magnitude,
    concatenate_firings,
    finite_rows,
    firings_of,
)
from extraction_assets_tests.engine.build import assert_same

KINDS = ["standard", "rescaled", "jumprelu", "gated"]
QUARTERS = np.arange(-6, 7) / 4
RUBBISH = [np.nan, np.inf, -np.inf]


class Case(NamedTuple):
    """A product of tokens and encoder in quarters, so that values often lie at zero or at their limit."""

    product: np.ndarray
    """float64 [N, F]"""
    wanted: np.ndarray
    """bool [N]"""
    bias: np.ndarray
    scale: np.ndarray
    """float64 [F], powers of two"""
    limit: np.ndarray
    magnitude_bias: np.ndarray


def quarters(shape: int | tuple[int, int], positive: bool = False) -> st.SearchStrategy[np.ndarray]:
    values = QUARTERS[QUARTERS >= 0] if positive else QUARTERS
    return hnp.arrays(np.float64, shape, elements=st.sampled_from(values.tolist()))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    tokens, features = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    scale = hnp.arrays(np.float64, features, elements=st.sampled_from([0.5, 1.0, 4.0]))
    return Case(
        draw(quarters((tokens, features))),
        draw(hnp.arrays(np.bool_, tokens)),
        draw(quarters(features)),
        draw(scale),
        draw(quarters(features, positive=True)),
        draw(quarters(features)),
    )


def activation_of(case: Case, kind: str) -> ActivationFunction:
    bias, scale, limit, magnitude_bias = (torch.from_numpy(column).float() for column in case[2:])
    return {
        "standard": ActivationFunction(bias),
        "rescaled": ActivationFunction(bias, scale),
        "jumprelu": ActivationFunction(bias, limit=limit),
        "gated": ActivationFunction(bias, magnitude=Magnitude(scale, magnitude_bias)),
    }[kind]


def formula(case: Case, kind: str) -> np.ndarray:
    """Dense features of all tokens: the published formula in float64."""
    pre = case.product + case.bias
    if kind == "rescaled":
        pre = pre * case.scale
    if kind == "jumprelu":
        pre = pre * (pre > case.limit)
    if kind == "gated":
        pre = (case.product * case.scale + case.magnitude_bias) * (pre > 0)
    return np.maximum(pre, 0)


def found(case: Case, kind: str) -> Firings:
    product = torch.from_numpy(case.product).float()
    return firings_of(product, torch.from_numpy(case.wanted), activation_of(case, kind))


def triples(firings: Firings) -> list[tuple[int, int, float]]:
    columns = (column.tolist() for column in firings[:3])
    return list(zip(*columns, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(case=cases())
def test_firings_are_the_positive_entries_of_the_formula_in_order(kind: str, case: Case) -> None:
    dense = formula(case, kind) * case.wanted[:, None]
    expected = [(int(t), int(f), dense[t, f]) for t, f in zip(*dense.nonzero(), strict=True)]
    firings = found(case, kind)
    assert triples(firings) == expected
    assert firings.finite.all()
    assert [column.dtype for column in firings] == [torch.int64, torch.int64, torch.float32, torch.bool]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(case=cases(), rubbish=st.sampled_from(RUBBISH))
def test_unwanted_tokens_may_hold_anything(kind: str, case: Case, rubbish: float) -> None:
    broken = case._replace(product=np.where(case.wanted[:, None], case.product, rubbish))
    assert_same(found(broken, kind), found(case, kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@given(case=cases(), rubbish=st.sampled_from(RUBBISH), data=st.data())
def test_a_wanted_token_that_is_not_finite_is_marked(
    kind: str, case: Case, rubbish: float, data: st.DataObject
) -> None:
    product = case.product.copy()
    row, column = (data.draw(st.integers(0, size - 1)) for size in product.shape)
    product[row, column] = rubbish
    finite = found(case._replace(product=product), kind).finite
    assert finite.tolist() == [number != row or not case.wanted[row] for number in range(len(product))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_at_its_limit_and_a_zero_of_either_sign_do_not_fire(kind: str) -> None:
    zeros, limit = np.array([0.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    product = np.array([[0.0, -0.0, 1.0 if kind == "jumprelu" else 0.0]])
    case = Case(product, np.ones(1, dtype=bool), -zeros, np.ones(3), limit, zeros)
    assert triples(found(case, kind)) == []


def test_the_next_float_above_its_limit_fires() -> None:
    above = np.nextafter(np.float32(1), np.float32(2))
    firings = firings_of(
        torch.tensor([[1.0, float(above)]]),
        torch.tensor([True]),
        ActivationFunction(torch.zeros(2), limit=torch.ones(2)),
    )
    assert triples(firings) == [(0, 1, float(above))]


def test_a_gate_that_overflows_is_marked_though_its_magnitude_is_finite() -> None:
    activation = ActivationFunction(torch.tensor([3e38]), magnitude=Magnitude(torch.tensor([1e-30]), torch.zeros(1)))
    firings = firings_of(torch.tensor([[3e38], [1.0]]), torch.tensor([True, True]), activation)
    assert firings.finite.tolist() == [False, True]


# Groups of tokens


@given(case=cases(), cut=st.integers(0, 5))
def test_firings_of_groups_concatenated_are_those_of_all(case: Case, cut: int) -> None:
    parts = [
        found(case._replace(product=case.product[rows], wanted=case.wanted[rows]), "standard")
        for rows in (slice(0, cut), slice(cut, None))
        if len(case.wanted[rows])
    ]
    assert_same(concatenate_firings(parts), found(case, "standard"))


def test_rows_are_finite_even_where_their_sum_overflows() -> None:
    rows: Tensor = torch.tensor([[3e38, 3e38], [3e38, -3e38], [1.0, float("inf")], [float("nan"), 1.0]])
    assert finite_rows(rows).tolist() == [True, True, False, False]
