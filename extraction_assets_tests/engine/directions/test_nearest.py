"""Nearest decoder rows by hand, and against all cosines."""

import numpy as np
import pytest
import torch

from extraction_assets.engine.directions import products
from extraction_assets.engine.directions.nearest import NEAREST, NearestRows, merge_nearest, nearest_rows, unit_rows
from extraction_assets_tests.engine.directions.oracle import cosines_of

F, G, D = 60, 45, 8


def rows_of(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) * 3


def nearest(rows: torch.Tensor, others: torch.Tensor | None = None, sae: int = 0) -> NearestRows:
    return nearest_rows(unit_rows(rows), unit_rows(rows if others is None else others), sae, is_itself=others is None)


def test_by_hand() -> None:
    found = nearest(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [-1.0, 0.0]]))
    assert found.feature[0].tolist() == [2, 1, 3, 0]
    assert found.cosine[0].tolist() == [1.0, 0.0, -1.0, -torch.inf]  # the last slot is itself, which is left out
    assert found.sae.unique().tolist() == [0]


def test_within_an_sae_they_are_those_of_all_cosines_without_itself() -> None:
    rows = rows_of(F, 1)
    found, cosines = nearest(rows), cosines_of(rows, rows)
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
    assert np.array_equal(found.feature, order)
    np.testing.assert_allclose(found.cosine, np.take_along_axis(cosines, order, 1), atol=1e-6)


def test_of_another_sae_they_are_those_of_all_cosines() -> None:
    rows, others = rows_of(F, 1), rows_of(G, 2)
    found, cosines = nearest(rows, others, sae=3), cosines_of(rows, others)
    assert np.array_equal(found.feature, np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST])
    assert found.sae.unique().tolist() == [3]


def test_of_two_saes_the_nearest_of_all() -> None:
    rows, one, other = rows_of(F, 1), rows_of(G, 2), rows_of(F, 3)
    found = merge_nearest(nearest(rows, one, 1), nearest(rows, other, 2))
    cosines = np.concatenate([cosines_of(rows, one), cosines_of(rows, other)], axis=1)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :NEAREST]
    assert np.array_equal(found.sae, np.where(order < G, 1, 2))
    assert np.array_equal(found.feature, np.where(order < G, order, order - G))


def test_equal_rows_are_in_the_order_of_saes_and_features() -> None:
    rows = torch.ones(30, D)
    within = nearest(rows)
    assert within.feature[4].tolist() == [number for number in range(21) if number != 4]
    both = merge_nearest(nearest(rows, rows, 1), nearest(rows, rows, 2))
    assert both.sae.unique().tolist() == [1]
    assert both.feature[4].tolist() == list(range(NEAREST))


def test_a_row_of_zeros_has_no_neighbours_and_is_none() -> None:
    rows = rows_of(F, 1)
    rows[7] = 0
    found = nearest(rows)
    assert bool((found.cosine[7] == -torch.inf).all())
    assert not bool(((found.feature == 7) & (found.cosine > -torch.inf)).any())


def test_a_cosine_is_at_most_one() -> None:
    rows = torch.full((9, 7), 0.1) * torch.arange(1, 10)[:, None]
    assert float(nearest(rows).cosine.max()) <= 1.0


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, updates = rows_of(F, 1), list[int]()
    whole = nearest(rows)
    monkeypatch.setattr(products, "rows_at_once", lambda *_: 16)
    parts = nearest_rows(unit_rows(rows), unit_rows(rows), 0, is_itself=True, update=updates.append)
    assert updates == [16, 16, 16, 12]
    assert torch.equal(whole.feature, parts.feature)
