"""Results that are exported: hand-made ones with hostile texts, on each database."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import opened_database
from extraction_assets_tests.browser import small_results


@pytest.fixture(scope="module")
def small_url(shared_results_url: str) -> str:
    """The small results, with relations, directions and a label of the SAE ``one``."""
    small_results.store_results(shared_results_url)
    with opened_database(shared_results_url) as engine, engine.begin() as connection:
        small_results.store_relations(connection)
        small_results.store_directions(connection)
        small_results.store_label(connection, "cats", "interesting", "a note")
    return shared_results_url


@pytest.fixture
def small(small_url: str) -> Iterator[sa.Connection]:
    """A connection to them that only reads."""
    with opened_database(small_url) as engine, engine.connect() as connection:
        yield connection
