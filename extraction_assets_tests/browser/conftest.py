"""The browser on the results of the tiny extraction, without a socket."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from extraction_assets.database.connect import opened_database
from extraction_assets.database.read_only import read_database
from extraction_assets_tests.browser.small_results import store_results
from extraction_assets_tests.project import Project

if TYPE_CHECKING:
    from starlette.testclient import TestClient

BASE = "http://localhost:3080"


def make_client(url: str, **options: Any) -> "TestClient":
    """A client of the browser on a database."""
    testclient = pytest.importorskip("starlette.testclient")
    from extraction_assets.browser.app import create_app
    from extraction_assets.browser.page import Options

    app = create_app(partial(read_database, url), Options(**options), partial(opened_database, url))
    return testclient.TestClient(app, base_url=BASE)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def small_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with hand-made results. Not to be changed."""
    file = tmp_path_factory.mktemp("small") / "results.sqlite"
    store_results(f"sqlite:///{file}")
    return file


@pytest.fixture
def client(project: Project) -> Iterator["TestClient"]:
    """A client of the browser on the tiny extraction, with the SAEs ``relu`` and ``topk``."""
    with make_client(project.url) as made:
        yield made


@pytest.fixture
def empty_client(empty_url: str) -> Iterator["TestClient"]:
    """A client of the browser on a database without results, of each kind in turn."""
    with make_client(empty_url) as made:
        yield made


Fetch = Callable[[str], str]


@pytest.fixture
def page(client: "TestClient") -> Fetch:
    """The HTML of a page that is there."""

    def fetch(address: str) -> str:
        answer = client.get(address)
        assert answer.status_code == 200, answer.text
        return answer.text

    return fetch
