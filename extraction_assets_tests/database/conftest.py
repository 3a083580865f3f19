"""What tests of lists of features share."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database
from extraction_assets.database.queries.feature_filter import Listing
from extraction_assets_tests.database.listed import MADE, store_features


@pytest.fixture(scope="module")
def _listed(shared_results_url: str) -> Iterator[tuple[sa.Engine, Listing]]:
    engine = open_database(shared_results_url)
    yield engine, store_features(engine, MADE)
    engine.dispose()


@pytest.fixture
def listing(_listed: tuple[sa.Engine, Listing]) -> Iterator[tuple[sa.Connection, Listing]]:
    """The features of ``MADE`` in a database of each kind, and a listing of all of them. Not to be changed."""
    engine, found = _listed
    with engine.connect() as connection:
        yield connection, found
