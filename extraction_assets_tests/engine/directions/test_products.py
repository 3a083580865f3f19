"""Products a block of rows at a time."""

import pytest
import torch

from extraction_assets.engine.directions import products as module
from extraction_assets.engine.directions.products import products, rows_at_once


@pytest.mark.parametrize("columns", [1, 1024, 2500])
def test_blocks_are_the_rows_of_the_product(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rows_at_once", lambda *_: 4)
    rows, matrix = torch.randn(10, 7), torch.randn(columns, 7)
    found = [block.clone() for block in products(rows, matrix, torch.neg)]
    assert [len(block) for block in found] == [4, 4, 2]
    torch.testing.assert_close(torch.cat(found), -rows @ matrix.T, rtol=1e-5, atol=1e-5)


def test_some_rows_are_worked_on_together_however_wide_they_are() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [rows_at_once(width, cpu) for width in (1, 50_000, 1 << 30)] == [4096, 335, 1]
    assert rows_at_once(50_000, gpu) > rows_at_once(50_000, cpu)
