"""Lists of features against a brute-force sort and count, on both databases."""

from itertools import pairwise

import pytest
import sqlalchemy as sa

from extraction_assets.database.queries import feature_list as queries
from extraction_assets.database.queries.feature_filter import FeatureFilter, Found, Listing
from extraction_assets.database.queries.feature_list import Key, Sort
from extraction_assets.database.tables import features
from extraction_assets_tests.database.listed import FILTERS, MADE
from extraction_assets_tests.database.plans import assert_uses_index

INDEXED: tuple[Sort, ...] = ("number", "density", "maximum", "mean", "std")
SORTS: tuple[Sort, ...] = (*INDEXED, "label", "flags")


def brute_force(wanted: FeatureFilter, sort: str, descending: bool) -> list[int]:
    """The numbers of the features in the order of a list: by value, equal ones by number, those without one last."""
    chosen = [one for one in MADE if one.is_wanted(wanted)]
    known = [one for one in chosen if one.value(sort) is not None]
    known.sort(key=lambda one: one.value(sort), reverse=descending)  # of equal ones the lower number stays first
    return [one.number for one in [*known, *(one for one in chosen if one.value(sort) is None)]]


def walked(connection: sa.Connection, listing: Listing, sort: Sort, descending: bool, limit: int) -> list[list[int]]:
    """All pages from the first to the last, each by the key of the one before."""
    pages, after = [], None
    while True:
        page = queries.page_of_features(connection, listing, sort, descending=descending, limit=limit, after=after)
        assert page.before == (after is not None)
        pages.append([row.neuron_index for row in page.rows])
        if not page.after:
            return pages
        after = Key(page.rows[-1].sorted_by, page.rows[-1].neuron_index)


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("sort", SORTS)
def test_all_pages_give_every_feature_once_in_order(
    listing: tuple[sa.Connection, Listing], sort: Sort, descending: bool
) -> None:
    for wanted in FILTERS:
        pages = walked(listing[0], listing[1]._replace(wanted=wanted), sort, descending, 7)
        assert [number for page in pages for number in page] == brute_force(wanted, sort, descending)
        assert all(len(page) == 7 for page in pages[:-1])


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("sort", SORTS)
def test_the_way_back_gives_the_same_pages(
    listing: tuple[sa.Connection, Listing], sort: Sort, descending: bool
) -> None:
    connection, of = listing
    pages = walked(connection, of, sort, descending, 11)
    for earlier, later in pairwise(pages):
        first = MADE[later[0]]
        page = queries.page_of_features(
            connection, of, sort, descending=descending, limit=11, before=Key(first.value(sort), first.number)
        )
        assert [row.neuron_index for row in page.rows] == earlier
        assert page.before == (earlier is not pages[0])
        assert page.after


def test_what_a_search_finds_can_be_sorted_by_how_often(listing: tuple[sa.Connection, Listing]) -> None:
    number = features.c.neuron_index
    members = sa.select(number).where(number < 9)
    found = Found(members.add_columns((number % 3).label("hits")), number, members)
    page = queries.page_of_features(
        listing[0], listing[1]._replace(found=found), "found", descending=True, limit=5, after=Key(2, 5)
    )
    assert [(row.neuron_index, row.sorted_by) for row in page.rows] == [(8, 2), (1, 1), (4, 1), (7, 1), (0, 0)]


@pytest.mark.parametrize("sort", INDEXED)
def test_an_unfiltered_list_follows_the_index_of_its_order(listing: tuple[sa.Connection, Listing], sort: Sort) -> None:
    connection, of = listing
    column = queries.COLUMNS[sort].key
    index = "features" if sort == "number" else f"ix_features_{column}"
    query = queries.page_select(of, sort, descending=True, limit=10, start=Key(1.0, 5))
    assert_uses_index(connection, query, index)
