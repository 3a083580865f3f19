"""What tests of lists of features share."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database
from extraction_assets.database.queries.feature_filter import Listing
from extraction_assets_tests.database.listed import MADE, store_features


@pytest.fixture
def listing(results_url: str) -> Iterator[tuple[sa.Connection, Listing]]:
    """The features of ``MADE`` in a database of each kind, and a listing of all of them."""
    engine = open_database(results_url)
    found = store_features(engine, MADE)
    with engine.connect() as connection:
        yield connection, found
    engine.dispose()
