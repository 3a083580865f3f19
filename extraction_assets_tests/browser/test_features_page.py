"""The list of features as a page: its rows, links, filters, search and what it says of what is not computed."""

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from extraction_assets.browser.list_facets import DENSITIES
from extraction_assets.browser.listed_features import listed_window
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.queries import search
from extraction_assets.database.queries.feature_filter import FeatureFilter, Range
from extraction_assets.database.tables import feature_labels, features
from extraction_assets_tests.browser.conftest import Fetch, make_client
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.listed import NAME, SAE, make_features, store_features
from extraction_assets_tests.project import Project

if TYPE_CHECKING:
    from starlette.testclient import TestClient

LIST = f"/{NAME}/{SAE}/"


@contextmanager
def _listed(url: str) -> Iterator["TestClient"]:
    """A client of the browser on features by hand."""
    engine = open_database(url)
    store_features(engine, make_features())
    engine.dispose()
    with make_client(url) as client:
        yield client


@pytest.fixture(scope="module")
def listed(shared_results_url: str) -> Iterator["TestClient"]:
    """Such a client on each database in turn. It only reads."""
    with _listed(shared_results_url) as client:
        yield client


@pytest.fixture
def changed(results_url: str) -> Iterator["TestClient"]:
    """The same, of a test that changes the database."""
    with _listed(results_url) as client:
        yield client


def numbers(text: str) -> list[int]:
    """The features of a list's page, in its order."""
    return [int(number) for number in re.findall(r">#(\d+)</a>", text)]


def links_of(text: str) -> list[str]:
    return [html.unescape(address) for address in re.findall(r'href="([^"]+)"', text)]


def twin(client: "TestClient", address: str) -> dict[str, Any]:
    path, _, query = address.partition("?")
    answer = client.get(f"{path}.json?{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_row_has_density_maximum_mean_tokens_and_an_example(page: Fetch, client: "TestClient") -> None:
    first = twin(client, "/tiny/relu/")["features"][0]
    assert first["example"]["positions"]
    row = re.search(r"<tr>\n<td class=\"num\">.*?</tr>", page("/tiny/relu/"), re.DOTALL)
    assert row
    assert f'href="/tiny/relu/{first["neuron_index"]}"' in row[0]
    assert all(f"<code>{html.escape(token)}</code>" in row[0] for token in first["tokens"] if token.isalnum())
    assert 'class="t t20 peak"' in row[0]


def test_an_example_begins_shortly_before_its_strongest_token() -> None:
    tokens = [" abcdefg"] * 9 + [" peak"] + [" after"] * 30
    assert listed_window(tokens, 9) == (6, 22)  # three tokens of eight characters
    assert listed_window(tokens[:10], 9) == (6, 10)
    assert listed_window(tokens, 0) == (0, 13)


def test_walking_all_pages_by_their_links_gives_each_feature_once(listed: "TestClient") -> None:
    address, seen, steps = f"{LIST}?rows=13&sort=std", list[int](), 0
    while address:
        found = twin(listed, address)
        seen += [one["neuron_index"] for one in found["features"]]
        address, steps = found["next"], steps + 1
    assert sorted(seen) == list(range(120))
    assert steps == 10


def test_the_link_back_gives_the_page_before(listed: "TestClient") -> None:
    first = listed.get(f"{LIST}?rows=13").text
    second = listed.get(next(one for one in links_of(first) if "after=" in one)).text
    before = listed.get(next(one for one in links_of(second) if "before=" in one)).text
    assert numbers(before) == numbers(first)
    assert numbers(second) != numbers(first)


def test_every_facet_leads_to_as_many_features_as_it_counts(listed: "TestClient") -> None:
    found = twin(listed, f"{LIST}?min_maximum=1")
    facets = [*found["density"], *found["labels"]]
    assert any(one["features"] for one in facets)
    for facet in facets:
        assert twin(listed, facet["address"])["total"] == facet["features"]


@pytest.mark.parametrize(
    "wanted",
    [
        FeatureFilter(density=Range(0.001, 0.01)),
        FeatureFilter(density=Range(0.0011, 0.01)),
        FeatureFilter(density=Range(0.001, None), maximum=Range(None, 4.0)),
        FeatureFilter(density=Range(None, 0.01), maximum=Range(0.9, 5.0)),
        FeatureFilter(maximum=Range(1.0, None), mean=Range(0.26, None)),
    ],
)
def test_totals_and_densities_are_exact_on_edges_of_bins_and_between_them(
    listed: "TestClient", wanted: FeatureFilter
) -> None:
    ranges = {"density": wanted.density, "maximum": wanted.maximum, "mean": wanted.mean}
    bounds = {
        f"{side}_{name}": one
        for name, limits in ranges.items()
        for side, one in zip(("min", "max"), limits, strict=True)
    }
    query = "&".join(f"{name}={value}" for name, value in bounds.items() if value is not None)
    found, made = twin(listed, f"{LIST}?rows=200&{query}"), make_features()
    assert found["total"] == len(found["features"]) == sum(one.is_wanted(wanted) for one in made)
    for (_, low, high), facet in zip(DENSITIES, found["density"], strict=True):
        assert facet["features"] == sum(one.is_wanted(wanted._replace(density=Range(low, high))) for one in made)


def test_a_chosen_facet_leads_back(listed: "TestClient") -> None:
    [chosen] = [one for one in twin(listed, f"{LIST}?label=labelled")["labels"] if one["active"]]
    assert chosen["name"] == "labelled"
    assert chosen["address"] == LIST


def test_what_relations_would_say_is_not_computed(listed: "TestClient") -> None:
    found = twin(listed, LIST)
    assert [one["features"] for one in found["flags"]] == [None] * 5
    assert found["relations_missing"].startswith("not computed for this result: ")
    assert html.escape(found["relations_missing"]) in listed.get(LIST).text


def test_a_number_leads_to_the_feature(listed: "TestClient") -> None:
    answer = listed.get(f"{LIST}?q=%2312", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/{NAME}/{SAE}/12")
    assert [one["neuron_index"] for one in twin(listed, f"{LIST}?q=%2312")["features"]] == [12]


def test_a_number_that_no_feature_has_says_which_there_are(listed: "TestClient") -> None:
    text = listed.get(f"{LIST}?q=%23999999").text
    assert "features are numbered from 0 to 119" in text


def test_a_label_is_found_whatever_its_case(listed: "TestClient") -> None:
    found = twin(listed, f"{LIST}?q=LABEL 50&by=label")
    assert [(one["neuron_index"], one["label"]) for one in found["features"]] == [(50, "label 50")]


def test_a_token_is_found_in_the_strongest_examples(client: "TestClient", project: Project) -> None:
    [(token, count)] = project.rows(
        "SELECT word, count(DISTINCT neuron_index) FROM strongest_tokens WHERE length(word) > 3 AND extraction_id = "
        "(SELECT id FROM extractions WHERE sae = 'relu') GROUP BY word ORDER BY count(*) DESC, word LIMIT 1"
    )
    found = twin(client, f"/tiny/relu/?q={token}")
    assert found["search"]["places"][0]["active"]
    assert found["total"] == found["search"]["places"][0]["features"] == count
    hits = [one["hits"] for one in found["features"]]
    assert hits == sorted(hits, reverse=True)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("sort=colour", "sort=colour is not one of number, density, maximum, mean, std, found"),
        ("sort=found", "sort=found sorts by what a search finds: it needs q="),
        ("min_density=much", "min_density=much is not a number"),
        ("max_mean=nan", "max_mean=nan is not a number"),
        ("flag=big", "flag=big is not one of dead, dense, one_token, first_position, duplicate"),
        ("label=good", "label=good is not one of labelled, interesting, polysemantic, dead end"),
        ("after=3", "after=3 is not where a page ends: take the address of a link"),
        ("after=x:3", "after=x:3 is not where a page ends: take the address of a link"),
        ("sort=density&after=:12", "after=:12 is not where a page sorted by density ends: take the address of a link"),
        ("q=a&before=:12", "before=:12 is not where a page sorted by found ends: take the address of a link"),
        ("after=1.0:3&before=1.0:3", "after= and before= exclude each other"),
        ("rows=0", "rows=0 is not a whole number from 1 to 500"),
        ("rows=501", "rows=501 is not a whole number from 1 to 500"),
        ("rows=5&rows=6", "the parameter 'rows' is given 2 times: give it once"),
        ("mni_density=1", "there is no parameter 'mni_density': this page has "),
        ("q=%00", "the parameter 'q' holds a character that no text in the database holds"),
        (f"q={'x' * 2001}", "the parameter 'q' has 2001 characters: at most 2000 are read"),
    ],
)
def test_a_bad_parameter_is_one_sentence(client: "TestClient", query: str, sentence: str) -> None:
    answer = client.get(f"/tiny/relu/.json?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(sentence)


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> javascript:alert(3) \u202eevil\x1b[2J"


def test_hostile_text_stays_text(changed: "TestClient", results_url: str) -> None:
    engine = open_database(results_url)
    with write_transaction(engine) as connection:
        of_feature = feature_labels.c.neuron_index == 0
        connection.execute(sa.update(feature_labels).where(of_feature).values(label=HOSTILE))
    engine.dispose()
    for address in (f"{LIST}?q=script&by=label", f"{LIST}?q={html.escape('<script>')}"):
        text = changed.get(address).text
        assert "<script>" not in text
        assert "<img" not in text
        assert "\u202e" not in text
        assert "\x1b" not in text
        assert not [one for one in links_of(text) if not one.startswith(("/", "#"))]
    assert r"\u202eevil\x1b[2J" in changed.get(f"{LIST}?q=script&by=label").text


def test_every_statement_of_a_searched_list_runs_as_it_is_shown(client: "TestClient", project: Project) -> None:
    text = client.get("/tiny/relu/?q=it's 100%25&min_density=0.001&max_maximum=3.5&sort=mean&label=labelled").text
    shown = [html.unescape(one) for one in re.findall(r'<pre class="sql"[^>]*>(.*?)</pre>', text, re.DOTALL)]
    assert any("it''s 100%" in statement for statement in shown)
    for statement in shown:
        project.rows(statement.replace(":", r"\:"))


def test_flags_of_an_earlier_result_filter_nothing(listed: "TestClient") -> None:
    answer = listed.get(f"{LIST}?flag=dead")
    assert answer.status_code == 400
    assert "cannot be filtered by flags, which are not computed for this result" in answer.text


def test_flags_of_an_earlier_result_sort_nothing(listed: "TestClient") -> None:
    answer = listed.get(f"{LIST}?sort=flags")
    assert answer.status_code == 400
    assert "cannot be sorted by flags, which are not computed for this result" in answer.text


def test_labelled_features_come_first_by_their_labels_on_every_page(listed: "TestClient") -> None:
    address, found = f"{LIST}?sort=label&rows=7", list[int]()
    while address:
        page = twin(listed, address)
        found += [one["neuron_index"] for one in page["features"]]
        address = page["next"]
    labels = {one.number: one.label for one in make_features()}
    labelled = sorted((label, number) for number, label in labels.items() if label)
    others = [number for number, label in labels.items() if not label]
    assert found == [number for _, number in labelled] + others
    assert 'class="sort on"' in listed.get(f"{LIST}?sort=label").text


@kinds.sql
def test_a_statistic_that_no_chunk_counted_filters_nothing(changed: "TestClient", results_url: str) -> None:
    assert changed.get(f"{LIST}?min_std=0.1").status_code == 200
    engine = open_database(results_url)
    with write_transaction(engine) as connection:
        connection.execute(sa.update(features).values(std_activation=None))
    engine.dispose()
    answer = changed.get(f"{LIST}?min_std=0.1")
    assert answer.status_code == 400
    assert "filtered by standard deviation: std_activation is not known in this result" in answer.text


def test_a_text_that_is_read_without_the_index_says_so(client: "TestClient", project: Project) -> None:
    [(word,)] = project.rows("SELECT word FROM strongest_tokens WHERE length(word) > 3 ORDER BY examples DESC LIMIT 1")
    text = client.get(f"/tiny/relu/?q={word}&by=text").text
    assert (
        "all samples were read, which takes long: the index of texts is made with tiny/relu/feature_relations" in text
    )


def test_a_search_that_lists_only_some_of_the_features_says_so(
    client: "TestClient", project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(word,)] = project.rows("SELECT word FROM strongest_tokens WHERE length(word) > 3 ORDER BY examples DESC LIMIT 1")
    monkeypatch.setattr(search, "MOST_FEATURES", 2)
    text = client.get(f"/tiny/relu/?q={word}&by=text").text
    assert "samples with the text, and only the 2 features that are in most of them are listed" in text
    assert len(numbers(text)) == 2


def test_a_place_that_is_no_number_is_refused(listed: "TestClient") -> None:
    assert listed.get(f"{LIST}?after=nan:3").status_code == 400
