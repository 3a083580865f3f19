"""Samples, documents and comparisons, and texts of others on all of these pages."""

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from extraction_assets.browser.pages import document, sample
from extraction_assets.database import tables
from extraction_assets.database.connect import opened_database, write_transaction
from extraction_assets_tests.browser.conftest import make_client
from extraction_assets_tests.browser.small_results import (
    HOSTILE_DOCUMENT,
    store_directions,
    store_label,
    store_relations,
)

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.fixture
def url(small_results: Path, tmp_path: Path) -> str:
    """A database with hand-made results."""
    return f"sqlite:///{shutil.copy(small_results, tmp_path)}"


@pytest.fixture
def small(url: str) -> Iterator["TestClient"]:
    with make_client(url) as client:
        yield client


def twin(client: "TestClient", path: str, **parameters: Any) -> dict[str, Any]:
    answer = client.get(f"{path}.json", params=parameters)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# Samples


def test_a_sample_lists_the_features_with_an_example_or_a_draw_of_it(small: "TestClient") -> None:
    found = twin(small, "/small/one/samples/7")
    assert found["feature_count"] == 3
    assert [(one["neuron_index"], one["max_activation"], one["share"]) for one in found["features"]] == [
        (0, 8.0, 1.0),
        (5, 1.25, 1.25 / 8),  # a draw
        (2, 1.0, 1.0 / 8),
    ]


def test_every_token_lists_the_features_that_fire_on_it(small: "TestClient") -> None:
    tokens = twin(small, "/small/one/samples/7")["tokens"]
    fired = {
        one["position"]: [(firing["neuron_index"], firing["activation"]) for firing in one["firings"]]
        for one in tokens
        if one["firings"]
    }
    assert fired == {2: [(0, 8.0), (2, 1.0)], 3: [(2, 0.5)], 6: [(5, 1.25)], 9: [(0, 2.0)]}
    assert [one["token_id"] for one in tokens] == list(range(100, 111))


def test_the_feature_nearest_to_its_maximum_comes_first(small: "TestClient") -> None:
    first = twin(small, "/small/one/samples/9")["tokens"][0]
    assert [one["neuron_index"] for one in first["firings"]] == [1, 0]


def test_a_sample_is_shaded_by_one_feature_on_demand(small: "TestClient") -> None:
    found = twin(small, "/small/one/samples/7", feature=2)
    assert found["context"]["positions"] == [2, 3]
    assert found["features"][0]["neuron_index"] == 2


def test_hovering_over_a_token_names_its_features(small: "TestClient") -> None:
    page = small.get("/small/one/samples/7").text
    assert 'title=" cat · #0 8.00, #2 1.00 · position 2" href="#p2"' in page
    assert '<tr id="p2">' in page


def test_a_sample_says_that_only_stored_examples_count(small: "TestClient") -> None:
    assert "Others may fire here too: no example says so." in small.get("/small/one/samples/7").text


def test_features_of_a_sample_come_in_parts(small: "TestClient", url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "FEATURES_SHOWN", 2)
    first, second = (twin(small, "/small/one/samples/7", **{"from": start}) for start in (0, 2))
    assert [[one["neuron_index"] for one in part["features"]] for part in (first, second)] == [[0, 5], [2]]
    assert 'href="/small/one/samples/7?from=2"' in small.get("/small/one/samples/7").text


def test_a_chosen_feature_is_read_whichever_part_is_shown(small: "TestClient", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "FEATURES_SHOWN", 1)
    found = twin(small, "/small/one/samples/7", feature=2)
    assert [one["neuron_index"] for one in found["features"]] == [2, 0]


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/small/one/samples/11", 404, "sample 11 is not stored"),
        ("/small/one/samples/7?feature=1", 400, "feature 1 has no stored example or draw of sample 7"),
        ("/small/one/samples/x", 404, "there is no page at"),
        ("/small/one/documents?id=no", 404, "no stored sample begins in a document 'no'"),
        ("/small/one/documents?id=a.txt&token=3", 400, "token and sample belong together"),
        ("/compare?a=small/one", 400, "'small/one' is not a feature: write EXTRACTION/SAE/NUMBER"),
        ("/compare?a=small/one/9&b=small/one/1", 404, "no feature 9"),
        ("/compare?a=small/no/1&b=small/one/1", 404, "choose one SAE"),
    ],
)
def test_what_is_not_there_is_one_sentence(small: "TestClient", address: str, status: int, sentence: str) -> None:
    answer = small.get(address)
    assert (answer.status_code, sentence in html.unescape(answer.text)) == (status, True)


# Documents


def test_a_document_lists_its_stored_samples_in_order(small: "TestClient") -> None:
    found = twin(small, "/small/one/documents", id="a.txt")
    assert [(one["sample_index"], one["first_token"], one["length"]) for one in found["samples"]] == [
        (7, 0, 11),
        (8, 10, 8),
    ]
    assert found["after"] is None


def test_a_long_document_comes_in_parts(small: "TestClient", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "SAMPLES_SHOWN", 1)
    first = twin(small, "/small/one/documents", id="a.txt")
    assert first["after"] == {"first_token": 0, "sample_index": 7}
    second = twin(small, "/small/one/documents", id="a.txt", token=0, sample=7)
    assert [one["sample_index"] for one in second["samples"]] == [8]


def test_samples_that_begin_at_one_token_are_all_listed(
    small: "TestClient", url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "SAMPLES_SHOWN", 1)
    with opened_database(url) as engine, write_transaction(engine) as connection:
        connection.execute(sa.update(tables.samples).values(first_token=0))
    second = twin(small, "/small/one/documents", id="a.txt", token=0, sample=7)
    assert [one["sample_index"] for one in second["samples"]] == [8]


def test_a_hostile_document_has_a_page(small: "TestClient") -> None:
    link = re.search(r'href="(/small/one/documents\?id=javascript[^"]*)"', small.get("/small/one/1").text)
    assert link
    answer = small.get(html.unescape(link[1]))
    assert answer.status_code == 200
    assert answer.text.count("\u202e") == 0


# Compare


def test_examples_of_one_corpus_overlap_by_sample_and_position(small: "TestClient") -> None:
    found = twin(small, "/compare", a="small/one/0", b="small/one/2")["overlap"]
    assert (found["samples_a"], found["samples_b"], found["samples"]) == (4, 1, 1)
    assert (found["positions_a"], found["positions_b"], found["positions"], found["strongest"]) == (2, 2, 1, 1)


def test_examples_of_two_corpora_do_not(small: "TestClient") -> None:
    found = twin(small, "/compare", a="small/one/0", b="other/one/0")
    assert found["overlap"] is None
    assert "they are of different corpora" in small.get("/compare?a=small/one/0&b=other/one/0").text


def test_histograms_are_compared_by_a_measure_that_is_stated(small: "TestClient") -> None:
    found = twin(small, "/compare", a="small/one/0", b="small/one/1")["agreement"]
    assert (found["overlap"], found["shift"]) == (0.25, -1)
    assert (
        "the sum over powers of two of the smaller share of firing tokens"
        in small.get("/compare?a=small/one/0&b=small/one/1").text
    )


def test_both_histograms_have_one_axis(small: "TestClient") -> None:
    found = twin(small, "/compare", a="small/one/0", b="small/one/1")
    lows = [[one["low"] for one in found[side]["histogram"]["bins"]] for side in "ab"]
    assert lows[0] == lows[1] == [1, 2, 4, 8]


def test_a_feature_that_never_fires_can_be_compared(small: "TestClient") -> None:
    assert twin(small, "/compare", a="small/one/0", b="small/one/3")["agreement"] is None
    assert "one of them never fires" in small.get("/compare?a=small/one/3&b=small/one/3").text


def test_what_relations_and_weights_say_of_the_two_is_shown(small: "TestClient", url: str) -> None:
    with opened_database(url) as engine, write_transaction(engine) as connection:
        store_relations(connection)
        store_directions(connection)
    found = twin(small, "/compare", a="small/one/1", b="small/one/0")
    assert (found["jaccard"], found["cosine"]) == (0.5, 0.5)


def test_the_same_number_is_offered_in_every_other_result(small: "TestClient") -> None:
    found = twin(small, "/compare", a="small/one/2")
    assert [one["name"] for one in found["same_index"]] == ["other/one/2", "small/two/2"]
    assert 'href="/compare?a=small%2Fone%2F2&amp;b=small%2Ftwo%2F2"' in small.get("/compare?a=small/one/2").text


def test_without_features_the_page_asks_for_them(small: "TestClient") -> None:
    assert "Name two features as EXTRACTION/SAE/NUMBER" in small.get("/compare").text


# All of them

ADDRESSES = (
    "/small/one/0",
    "/small/one/0?window=all&marks=1",
    "/small/one/1?window=all",
    "/small/one/3",
    "/small/one/samples/9",
    "/small/one/samples/10?marks=1",
    f"/small/one/documents?id={HOSTILE_DOCUMENT.replace('&', '%26')}",
    "/compare",
    "/compare?a=small/one/1",
    "/compare?a=small/one/0&b=small/two/0",
)


@pytest.fixture
def complete(url: str) -> Iterator["TestClient"]:
    """With everything that can be computed, and hostile labels."""
    with opened_database(url) as engine, write_transaction(engine) as connection:
        store_relations(connection)
        store_directions(connection)
        store_label(connection, "<b onclick=alert(1)>\u202e", "interesting", "<img src=x onerror=alert(1)>")
    with make_client(url) as client:
        yield client


@pytest.mark.parametrize("address", ADDRESSES)
def test_texts_of_others_become_no_markup(complete: "TestClient", address: str) -> None:
    page = complete.get(address)
    assert page.status_code == 200
    markup = page.text.partition('<footer id="sql">')[0]
    assert not re.search(r"<script(?! src=\"/static/)|<img|<b onclick|\son\w+=\"|href=\"javascript|style=", markup)
    assert not set("\u202e\x1b") & set(page.text)


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_statements_of_a_page_run_as_they_are_shown(complete: "TestClient", url: str, address: str) -> None:
    shown = re.findall(r'<pre class="sql"[^>]*>(.*?)</pre>', complete.get(address).text, re.DOTALL)
    assert shown or address == "/compare"  # without two features it reads nothing
    with opened_database(url) as engine, engine.connect() as connection:
        for statement in shown:
            connection.exec_driver_sql(html.unescape(statement)).all()


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_page_names_its_twin(complete: "TestClient", address: str) -> None:
    found = re.search(r'<a href="([^"]*)">JSON</a>', complete.get(address).text)
    assert found
    answer = complete.get(html.unescape(found[1]))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
