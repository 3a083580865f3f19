"""The intervals of a feature: names, populations, draws."""

from extraction_assets.browser.shown.intervals import feature_intervals
from extraction_assets.engine.selection.intervals import INTERVALS, OF_ALL


def test_intervals_come_strongest_first_with_share_and_draws():
    population = [0] * INTERVALS
    population[45], population[40] = 3, 1
    found = feature_intervals(population, [(40, "a"), (45, "b"), (45, "c"), (OF_ALL, "d")])
    assert [(one.name, one.samples, one.share, one.examples) for one in found] == [
        ("6 to 8", 3, 0.75, ("b", "c")),
        ("1 to 1.5", 1, 0.25, ("a",)),
    ]


def test_a_population_that_was_not_counted_is_unknown():
    (found,) = feature_intervals(None, [(45, "a")])
    assert (found.samples, found.share, found.examples) == (None, None, ("a",))


def test_a_feature_that_never_fires_has_no_intervals():
    assert feature_intervals([0] * INTERVALS, []) == ()


def test_the_open_ends_are_said():
    population = [1, *[0] * (INTERVALS - 2), 1]
    assert [one.name for one in feature_intervals(population, ())] == ["786,432 on", "below 1.43e-06"]
