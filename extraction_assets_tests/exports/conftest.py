"""Results that are exported: hand-made ones with hostile texts, on each database."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import opened_database, write_transaction
from extraction_assets.exports.source import ExportSource
from extraction_assets_tests.browser import small_results
from extraction_assets_tests.exports.hostile import make_hostile
from extraction_assets_tests.exports.written import declared_source
from extraction_assets_tests.project import Project


@pytest.fixture(scope="module")
def small_url(shared_results_url: str) -> str:
    """The small results, with relations, directions and a label of the SAE ``one``."""
    small_results.store_results(shared_results_url)
    with opened_database(shared_results_url) as engine, write_transaction(engine) as connection:
        small_results.store_relations(connection)
        small_results.store_directions(connection)
        small_results.store_label(connection, "cats", "interesting", "a note")
    return shared_results_url


@pytest.fixture(scope="module")
def small_engine(small_url: str) -> Iterator[sa.Engine]:
    with opened_database(small_url) as engine:
        yield engine


@pytest.fixture
def small(small_engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection to them that only reads."""
    with small_engine.connect() as connection:
        yield connection


@pytest.fixture(scope="session")
def hostile_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A transcoder's extraction over hostile text. Not to be changed."""
    return make_hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def hostile(hostile_project: Project) -> Iterator[ExportSource]:
    """What is exported of it, with its checkpoint."""
    with declared_source(hostile_project, "mlp") as source:
        yield source


@pytest.fixture
def tiny(project: Project) -> Iterator[ExportSource]:
    """What is exported of the SAE ``relu`` of the tiny extraction, with its relations, directions and checkpoint."""
    project.relations_and_directions()
    with declared_source(project, "relu") as source:
        yield source
