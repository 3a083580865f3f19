"""The product of tokens and encoder comes in parts that make the whole one."""

import pytest
import torch

from extraction_assets.engine.saes import products
from extraction_assets.engine.saes.products import part_columns, tiles_together


@pytest.mark.parametrize("columns", [None, 3, 7])
@pytest.mark.parametrize("together", [1, 2, 5])
def test_parts_put_together_are_the_whole_product(columns: int | None, together: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, encoder = (torch.randint(-9, 9, shape, generator=generator).float() for shape in ((10, 4), (4, 7)))
    whole = torch.full((10, 7), torch.nan)
    for row, feature, values in products.products(x, encoder, 2, columns, together):
        whole[row : row + values.shape[0], feature : feature + values.shape[1]] = values
    assert torch.equal(whole, x @ encoder)


def test_without_rows_there_is_one_part_without_rows() -> None:
    parts = list(products.products(torch.empty(0, 4), torch.ones(4, 7), 2, None, 3))
    assert [(row, feature, tuple(values.shape)) for row, feature, values in parts] == [(0, 0, (0, 7))]


def test_a_part_is_a_whole_tile_unless_that_takes_more_than_128_mib() -> None:
    encoder = torch.empty(1, 131_072, device="meta")
    assert part_columns(256, encoder) == 131_072
    assert part_columns(512, encoder) == 65_536
    assert part_columns(1 << 20, encoder) == 2048
    assert part_columns(1 << 20, encoder, least=5000) == 4096


@pytest.mark.parametrize(
    ("rows", "tile", "columns", "tiles"), [(32_768, 2048, 16_384, 4), (4096, 2048, 16_384, 2), (4096, 2048, 2048, 1)]
)
def test_half_a_gib_of_whole_tiles_is_read_at_once(rows: int, tile: int, columns: int, tiles: int) -> None:
    assert tiles_together(rows, tile, columns, torch.empty(1, 16_384, device="meta")) == tiles
