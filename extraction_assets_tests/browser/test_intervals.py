"""Half octaves of a sample's maximum, their names and populations."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.browser.intervals import INTERVALS, RANDOM, bounds, feature_intervals


def interval_of(value: float) -> int:
    """From the float's bits: exponent and highest mantissa bit."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0] >> 22
    return min(INTERVALS - 1, max(0, bits - 2 * (127 - 20)))


@given(st.floats(width=32, min_value=2.0**-126, allow_infinity=False))
def test_an_activation_lies_between_the_bounds_of_its_interval(value: float):
    low, high = bounds(interval_of(value))
    assert low <= value
    assert high is None or value < high


def test_intervals_come_strongest_first_with_share_and_draws():
    population = [0] * INTERVALS
    population[45], population[40] = 3, 1
    found = feature_intervals(population, [40, 45, 45, RANDOM])
    assert [(one.name, one.samples, one.share, one.drawn) for one in found] == [
        ("6 to 8", 3, 0.75, (1, 2)),
        ("1 to 1.5", 1, 0.25, (0,)),
    ]


def test_a_population_that_was_not_counted_is_unknown():
    (found,) = feature_intervals(None, [45])
    assert (found.samples, found.share, found.drawn) == (None, None, (0,))


def test_a_feature_that_never_fires_has_no_intervals():
    assert feature_intervals([0] * INTERVALS, []) == []
