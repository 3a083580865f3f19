"""What all pages have in common: twins, statements, errors, static files."""

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from extraction_assets_tests.browser.conftest import BASE, Fetch, make_client
from extraction_assets_tests.project import Project

if TYPE_CHECKING:
    from starlette.testclient import TestClient

PAGES = ("/", "/tiny/relu/")


@pytest.mark.parametrize("address", PAGES)
def test_every_page_names_its_twin_which_is_json(client: "TestClient", page: Fetch, address: str) -> None:
    found = re.search(r'<a href="([^"]*)">JSON</a>', page(address))
    assert found
    twin = client.get(found[1])
    assert (twin.status_code, twin.headers["content-type"]) == (200, "application/json")
    assert isinstance(twin.json(), dict)


@pytest.mark.parametrize("address", PAGES)
def test_the_statements_of_a_page_run_as_they_are_shown(project: Project, page: Fetch, address: str) -> None:
    shown = re.findall(r'<pre class="sql"[^>]*>(.*?)</pre>', page(address), re.DOTALL)
    assert shown
    for statement in shown:
        assert project.rows(html.unescape(statement)) is not None


def test_the_extractions_are_listed_with_their_links(page: Fetch) -> None:
    text = page("/")
    assert 'href="/tiny/relu/"' in text
    assert 'href="/tiny/topk/"' in text


def test_the_twin_of_the_extractions_counts_dead_features(client: "TestClient", project: Project) -> None:
    found = {one["sae"]: one for one in client.get("/.json").json()["extractions"]}
    [(dead,)] = project.rows(
        "SELECT count(*) FROM features WHERE token_count = 0 "
        "AND extraction_id = (SELECT id FROM extractions WHERE sae = 'topk')"
    )
    assert found["topk"]["dead_count"] == dead


@pytest.mark.slow
def test_a_database_without_results_says_what_to_do(empty_client: "TestClient") -> None:
    answer = empty_client.get("/")
    assert answer.status_code == 200
    assert "Nothing is merged yet" in answer.text


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/no/relu/", 404, "no merged results of extraction &#39;no&#39;: run it first"),
        ("/tiny/no/", 404, "choose one SAE of extraction &#39;tiny&#39;: relu, topk (not &#39;no&#39;)"),
        ("/nothing", 404, "there is no page at /nothing"),
        ("/?x=1", 400, "there is no parameter &#39;x&#39;: this page has none"),
        ("/?x=%ff", 400, "what follows ? in the address is not UTF-8 text of at most 100 parameters"),
    ],
)
def test_what_is_not_there_is_one_sentence(client: "TestClient", address: str, status: int, sentence: str) -> None:
    answer = client.get(address)
    assert answer.status_code == status
    assert f"<p>{sentence}</p>" in answer.text


def test_the_twin_of_an_error_is_json(client: "TestClient") -> None:
    answer = client.get("/no/relu/.json")
    assert answer.status_code == 404
    assert answer.json() == {"error": "no merged results of extraction 'no': run it first"}


def test_text_of_an_address_does_not_become_markup(client: "TestClient") -> None:
    answer = client.get("/%3Cscript%3Ealert(1)%3C/script%3E/x/")
    assert answer.status_code == 404
    assert "<script>" not in answer.text


def test_a_damaged_database_is_unavailable_and_the_page_returns_with_it(tmp_path: Path, project: Project) -> None:
    file = Path(str(sa.make_url(project.url).database))
    with make_client(project.url) as client:
        assert client.get("/").status_code == 200
        moved = file.rename(file.with_name("moved"))
        file.write_bytes(b"not a database" * 100)
        answer = client.get("/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "file is not a database" in answer.text
        moved.rename(file)
        assert client.get("/").status_code == 200


def test_a_database_that_appears_later_is_read(tmp_path: Path, project: Project) -> None:
    file = Path(str(sa.make_url(project.url).database))
    hidden = file.rename(file.with_name("hidden"))
    with make_client(project.url) as client:
        assert "Nothing is merged yet" in client.get("/").text
        assert not file.exists()
        hidden.rename(file)
        assert "/tiny/relu/" in client.get("/").text


def test_the_style_sheet_may_be_kept_as_long_as_its_address_names_its_content(
    client: "TestClient", page: Fetch
) -> None:
    found = re.search(r'href="(/static/style\.css\?v=\w+)"', page("/"))
    assert found
    assert "immutable" in client.get(found[1]).headers["cache-control"]
    assert client.get("/static/style.css").headers["cache-control"] == "no-cache"


def test_an_address_without_the_last_slash_leads_to_the_list(client: "TestClient") -> None:
    answer = client.get("/tiny/relu", follow_redirects=False)
    assert answer.headers["location"] == f"{BASE}/tiny/relu/"
