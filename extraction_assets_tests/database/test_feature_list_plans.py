"""A list that is narrowed down by flags, labels, a token or a text finds its features by an index on both databases."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from extraction_assets.database.queries import feature_counts as counts
from extraction_assets.database.queries import feature_list, search
from extraction_assets.database.queries.feature_filter import FeatureFilter, Found, Listing, Range
from extraction_assets.database.tables import feature_tokens
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.listed import MADE, NAME, SAE
from extraction_assets_tests.database.plans import assert_uses_index, plan_of
from extraction_assets_tests.database.stored_rows import store_rows

pytestmark = kinds.shared_sql


TOKEN = search.parse_search("the")
FOUND: dict[str, Found] = {
    "a token": search.token_found(1, TOKEN, counted=True),
    "a label": search.label_found(NAME, SAE, search.parse_search("label")),
}
WANTED = {
    "a flag": FeatureFilter(flags=("dense",)),
    "flags and a label": FeatureFilter(flags=("dense", "one_token"), label="interesting"),
    "a label and a range": FeatureFilter(label="labelled", density=Range(0.001, 0.01)),
}


@pytest.fixture
def stored(listing: tuple[sa.Connection, Listing]) -> Iterator[tuple[sa.Connection, Listing]]:
    """The features with top tokens, and the statistics of the database."""
    connection, of = listing
    rows = [
        {
            "extraction_id": of.extraction_id,
            "neuron_index": one.number,
            "place": "firing",
            "rank": rank,
            "token_id": rank,
            "token": token,
            "count": 10 - rank,
            "mean_activation": 1.0,
            "share": 0.5,
        }
        for one in MADE
        for rank, token in enumerate([" the" if one.number % 4 == 0 else " a", f" w{one.number}"])
    ]
    store_rows(connection, feature_tokens, rows)
    connection.exec_driver_sql("ANALYZE")
    yield connection, of
    connection.rollback()


def narrowed(of: Listing, by: str) -> Listing:
    return of._replace(found=FOUND[by]) if by in FOUND else of._replace(wanted=WANTED[by])


def assert_finds_features(connection: sa.Connection, query: sa.Select[tuple[object, ...]]) -> None:
    """No table is read as a whole, and SQLite looks up the features by their numbers in the index that has them all."""
    for table in ("features", "feature_tokens", "feature_flags"):
        plan = plan_of(connection, query)
        if table in plan:
            assert_uses_index(connection, query, table)
    if connection.dialect.name == "sqlite":
        assert "features USING COVERING INDEX ix_features_numbers (extraction_id=? AND neuron_index=?" in plan


@pytest.mark.parametrize("by", [*FOUND, *WANTED])
def test_the_plot_looks_up_the_named_features(stored: tuple[sa.Connection, Listing], by: str) -> None:
    connection, of = stored
    assert_finds_features(connection, counts.cells_select(narrowed(of, by)))


def test_flags_of_a_large_list_are_looked_up_in_the_index_of_numbers(stored: tuple[sa.Connection, Listing]) -> None:
    connection, of = stored
    wanted = FeatureFilter(density=Range(0.0003, 0.004), maximum=Range(0.7, 7))
    assert_finds_features(connection, counts.flags_select(of._replace(wanted=wanted, is_large=True)))


@pytest.mark.parametrize("by", [*FOUND, *WANTED])
def test_facets_of_a_narrowed_list_scan_no_table(stored: tuple[sa.Connection, Listing], by: str) -> None:
    connection, of = stored
    for query in (counts.flags_select(narrowed(of, by)), counts.labels_select(narrowed(of, by))):
        plan = plan_of(connection, query)
        for table in ("features", "feature_tokens", "feature_flags"):
            assert f"SCAN {table}" not in plan, plan
            assert f"Seq Scan on {table}" not in plan, plan


@pytest.mark.parametrize("is_large", [False, True], ids=["few", "many"])
@pytest.mark.parametrize("by", [*FOUND, *WANTED])
def test_a_page_of_a_narrowed_list_scans_no_table(
    stored: tuple[sa.Connection, Listing], by: str, is_large: bool
) -> None:
    connection, of = stored
    query = feature_list.page_select(
        narrowed(of, by)._replace(is_large=is_large), "maximum", descending=True, limit=50, start=None
    )
    plan = plan_of(connection, query)
    for table in ("features", "feature_tokens", "feature_flags"):
        assert f"SCAN {table}" not in plan, plan
        assert f"Seq Scan on {table}" not in plan, plan
    if is_large and by in ("a token", "a flag") and connection.dialect.name == "sqlite":
        assert "ix_features_max_activation" in plan, plan


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("sort", ["label", "flags"])
def test_an_order_by_labels_or_flags_scans_no_table(
    stored: tuple[sa.Connection, Listing], sort: feature_list.Sort, known: bool
) -> None:
    connection, of = stored
    plan = plan_of(connection, feature_list.page_select(of, sort, descending=False, limit=50, known=known))
    for table in ("features", "feature_flags", "feature_labels"):
        assert f"SCAN {table} " not in f"{plan} ".replace("\n", " "), plan
        assert f"Seq Scan on {table} " not in plan, plan


def test_a_token_is_found_by_the_index_of_tokens(stored: tuple[sa.Connection, Listing]) -> None:
    connection, _ = stored
    found = FOUND["a token"]
    for query in (search.count_select(found, "found"), found.hits):
        assert_uses_index(connection, query, "ix_feature_tokens_token")


def test_features_with_a_text_are_found_by_the_lists_of_their_samples(stored: tuple[sa.Connection, Listing]) -> None:
    connection, of = stored
    assert_uses_index(connection, search.text_select(connection, of.extraction_id, "text"), "sample_feature_lists")
