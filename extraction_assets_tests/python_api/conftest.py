"""Results of the tiny extraction in SQLite and PostgreSQL, opened as a program opens them."""

from collections.abc import Iterator

import pytest

from extraction_assets import open_results
from extraction_assets.database.connect import opened_database, write_transaction
from extraction_assets.python_api.extraction import ExtractionResults
from extraction_assets.python_api.results import Results
from extraction_assets.resources import ResultsResource
from extraction_assets_tests.browser.small_results import store_directions, store_label, store_relations, store_results
from extraction_assets_tests.project import Project


@pytest.fixture
def results(project: Project) -> Iterator[Results]:
    """The tiny extraction in this test's own home, where results are looked for by default."""
    with open_results() as found:
        yield found


@pytest.fixture
def relu(results: Results) -> ExtractionResults:
    return results["tiny/relu"]


@pytest.fixture(scope="module")
def small_url(shared_results_url: str) -> str:
    """Hand-made results with relations, directions and a label of ``small/one``, in a database of each kind in turn."""
    store_results(shared_results_url)
    with opened_database(shared_results_url) as engine, write_transaction(engine) as connection:
        store_relations(connection)
        store_directions(connection)
        store_label(connection, "the cat", "interesting", None)
    return shared_results_url


@pytest.fixture(scope="module")
def small(small_url: str) -> Iterator[ExtractionResults]:
    """The SAE ``one`` of the hand-made results, in a database of each kind in turn. It only reads."""
    with open_results(small_url) as found:
        yield found["small/one"]


@pytest.fixture
def merged_url(project: Project, empty_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tiny extraction's SAE ``relu`` merged into a database of each kind in turn; its files are in the home."""
    with monkeypatch.context() as environment:
        environment.setenv("EXTRACTION_DATABASE_URL", empty_url)
        Project(project.settings, project.home, results=ResultsResource()).merge("relu")
    return empty_url
