"""Counts of lists of features against a brute-force count, on both databases."""

import pytest
import sqlalchemy as sa

from extraction_assets.database.bins import DENSITY_EDGES, bin_of
from extraction_assets.database.queries import feature_counts as queries
from extraction_assets.database.queries.feature_filter import FLAGS, LABELLED, FeatureFilter, Listing, Range
from extraction_assets.database.queries.labels import MARKS
from extraction_assets_tests.database.listed import FILTERS, MADE, Feature


def left(wanted: FeatureFilter) -> int:
    return sum(one.is_wanted(wanted) for one in MADE)


def test_facets_count_what_they_would_leave(listing: tuple[sa.Connection, Listing]) -> None:
    for wanted in FILTERS:
        connection, of = listing[0], listing[1]._replace(wanted=wanted)
        assert queries.total(queries.feature_cells(connection, of)) == left(wanted)
        labels = queries.label_counts(connection, of)
        for label in (LABELLED, *MARKS):
            assert labels.get(label, 0) == left(wanted._replace(label=label))


@pytest.mark.parametrize("is_large", [False, True], ids=["few", "many"])
def test_flags_count_what_they_would_leave(listing: tuple[sa.Connection, Listing], is_large: bool) -> None:
    for wanted in FILTERS:
        connection, of = listing[0], listing[1]._replace(wanted=wanted, is_large=is_large)
        flags = queries.flag_counts(connection, of)
        for flag in FLAGS:
            assert flags.get(flag, 0) == left(wanted._replace(flags=(*wanted.flags, flag)))


def density_bin(one: Feature) -> int | None:
    return bin_of(None if one.maximum is None else one.density, DENSITY_EDGES)


def test_densities_and_cells_count_the_features_in_them(listing: tuple[sa.Connection, Listing]) -> None:
    for wanted in FILTERS:
        connection, of = listing[0], listing[1]._replace(wanted=wanted)
        free = [density_bin(one) for one in MADE if one.is_wanted(wanted._replace(density=Range()))]
        cells = queries.feature_cells(connection, of)
        densities = {number: count for number, count in queries.density_counts(cells).items() if count}
        assert densities == {number: free.count(number) for number in set(free)}
        assert sum(cell.features for cell in cells) == left(wanted._replace(density=Range(), maximum=Range()))


def test_a_bound_that_is_spelled_otherwise_is_the_same_edge(listing: tuple[sa.Connection, Listing]) -> None:
    connection, of = listing
    exact, near = (of._replace(wanted=FeatureFilter(density=Range(low, None))) for low in (0.01, 0.01 * (1 + 1e-15)))
    totals = [queries.total(queries.feature_cells(connection, one)) for one in (near, exact)]
    assert totals == [left(FeatureFilter(density=Range(0.01, None)))] * 2
