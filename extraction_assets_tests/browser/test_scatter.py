"""The plot of density against maximum: cells, shades, ticks."""

from extraction_assets.browser.scatter import HEIGHT, WIDTH, scatter
from extraction_assets.database.bins import DENSITY_EDGES, MAX_EDGES, bin_of
from extraction_assets.database.queries.feature_counts import Cell
from extraction_assets.database.queries.feature_filter import Range


def cell(density: float, maximum: float, features: int = 1) -> Cell:
    bins = bin_of(density, DENSITY_EDGES), bin_of(maximum, MAX_EDGES)
    return Cell(*bins, features=features, in_maximum=features, listed=features)


def test_features_that_never_fire_are_no_plot() -> None:
    assert scatter([Cell(None, None, 5, 5, 5)], Range(), Range()) is None


def test_the_strongest_features_lie_on_top_and_the_densest_to_the_right() -> None:
    plot = scatter([cell(0.0001, 1.0), cell(0.01, 64.0, features=9)], Range(), Range())
    assert plot is not None
    weak, strong = (shade.path for shade in plot.shades)  # 20 bins of density, 48 of maximum
    assert (weak, strong) == ("M0 48h1v1h-1z", "M20 0h1v1h-1z")
    assert (round(plot.cell_width * 21), round(plot.cell_height * 49)) == (WIDTH, HEIGHT)


def test_a_cell_of_more_features_is_darker() -> None:
    plot = scatter([cell(0.0001, 1.0), cell(0.01, 64.0, features=9)], Range(), Range())
    assert plot is not None
    assert [shade.shade for shade in plot.shades] == [10, 20]


def test_ticks_are_written_out() -> None:
    plot = scatter([cell(1.5e-7, 0.3), cell(0.15, 5000.0)], Range(), Range())
    assert plot is not None
    assert [tick.text for tick in plot.across][:3] == ["0.0001 %", "0.001 %", "0.01 %"]
    assert [tick.text for tick in plot.up][-2:] == ["1,024", "4,096"]
