"""The k largest pre-activations, against a stable descending sort of all of them."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from extraction_assets.engine.saes import top_k
from extraction_assets.engine.saes.activation import ActivationFunction, Firings
from extraction_assets.engine.saes.top_k import top_k_firings_of
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.sorted_top_k import sorted_top_k

VALUES = [-2.0, -1.0, -0.0, 0.0, 1e-42, 0.5, 1.0, 1.0000001, 2.0, 3e38]
RUBBISH = [float("nan"), float("inf"), float("-inf")]


def found(product: Tensor, k: int, wanted: Tensor | None = None, scale: Tensor | None = None) -> Firings:
    activation = ActivationFunction(torch.zeros(product.shape[1]), scale)
    return top_k_firings_of(product.clone(), all_of(product) if wanted is None else wanted, activation, k)


def all_of(product: Tensor) -> Tensor:
    return torch.ones(len(product), dtype=torch.bool)


def products(values: list[float], most: int) -> st.SearchStrategy[Tensor]:
    shapes = st.tuples(st.integers(1, 4), st.integers(1, most))
    arrays = shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=st.sampled_from(values)))
    return arrays.map(torch.from_numpy)


@pytest.mark.slow
@given(product=products([np.float32(v).item() for v in VALUES], 60), k=st.integers(1, 70))
def test_the_k_largest_are_the_first_of_a_stable_sort(product: Tensor, k: int) -> None:
    assert_same(found(product, k), sorted_top_k(product, all_of(product), k))


@pytest.mark.slow
@given(product=products([*RUBBISH, 0.5, 1.0, -1.0], 30), k=st.integers(1, 8), data=st.data())
def test_what_is_not_finite_takes_its_place_as_in_a_sort(product: Tensor, k: int, data: st.DataObject) -> None:
    wanted = torch.from_numpy(data.draw(hnp.arrays(np.bool_, len(product))))
    assert_same(found(product, k, wanted), sorted_top_k(product, wanted, k))


@pytest.mark.parametrize("k", [1, 3, 64, 1000, 4096])
@pytest.mark.parametrize("features", [1, 63, 1000, 5000])
def test_random_numbers_with_ties_give_what_a_sort_gives(k: int, features: int) -> None:
    generator = torch.Generator().manual_seed(features)
    product = (torch.randn(40, features, generator=generator) * 4).round() / 4
    scale = torch.rand(features, generator=generator) + 0.5
    for factor in (None, scale):
        values = product if factor is None else product * factor
        assert_same(found(product, k, scale=factor), sorted_top_k(values, all_of(values), k))


@pytest.mark.parametrize("k", [64, 4096])
def test_a_million_features_give_what_a_sort_gives(k: int) -> None:
    product = (torch.randn(2, 2**20, generator=torch.Generator().manual_seed(3)) * 4).round() / 4
    assert_same(found(product, k), sorted_top_k(product, all_of(product), k))


@pytest.mark.parametrize("k", [1, 3, 1000])
def test_of_equal_values_the_lower_features_are_kept(k: int) -> None:
    firings = found(torch.ones(2, 1000), k)
    assert firings.features.tolist() == list(range(k)) * 2


def test_blocks_of_tokens_give_the_same_as_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    product = torch.randn(30, 100, generator=torch.Generator().manual_seed(1))
    together = found(product, 5)
    monkeypatch.setattr(top_k, "_BLOCK_ENTRIES", 700)
    assert_same(found(product, 5), together)


def test_few_values_but_the_k_largest_are_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would be as slow as a sort, with the same answer."""
    sorted_widths, real = list[int](), Tensor.sort

    def noted(table: Tensor, *arguments: object, **named: object) -> object:
        sorted_widths.append(table.shape[1])
        return real(table, *arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Tensor, "sort", noted)
    found(torch.randn(20, 16_384, generator=torch.Generator().manual_seed(2)), 64)
    assert sorted_widths
    assert max(sorted_widths) < 130
