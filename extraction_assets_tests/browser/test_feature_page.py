"""A feature's page: its texts and numbers, where to go from it, and what it says of what is not there."""

import html
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from extraction_assets.browser.links import NoLinks
from extraction_assets.browser.pages.feature import Reading, feature_view
from extraction_assets.browser.rendering import environment
from extraction_assets.browser.shown.feature_reads import first_tokens
from extraction_assets.database.connect import opened_database, write_transaction
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.tables import corpora, extractions, feature_draw_lists, feature_ranges
from extraction_assets_tests.browser.conftest import make_client
from extraction_assets_tests.browser.small_results import (
    EXAMPLES,
    store_directions,
    store_label,
    store_relations,
)

if TYPE_CHECKING:
    from starlette.testclient import TestClient

Twin = dict[str, Any]


@pytest.fixture
def url(small_results: Path, tmp_path: Path) -> str:
    """A database with hand-made results."""
    return f"sqlite:///{shutil.copy(small_results, tmp_path)}"


@pytest.fixture
def small(url: str) -> Iterator["TestClient"]:
    with make_client(url) as client:
        yield client


def feature(client: "TestClient", address: str = "/small/one/0") -> Twin:
    """The JSON twin of a feature."""
    path, _, query = address.partition("?")
    answer = client.get(f"{path}.json?{query}" if query else f"{path}.json")
    assert answer.status_code == 200, answer.text
    found: Twin = answer.json()
    return found


def add(url: str, store: Callable[..., None], *values: Any) -> None:
    """More hand-made rows."""
    with opened_database(url) as engine, write_transaction(engine) as connection:
        store(connection, *values)


def shown_text(context: Twin) -> str:
    return "".join(context["tokens"])


def plain_text(page: str) -> str:
    """What a reader sees of a page, roughly."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page)))


def test_examples_come_strongest_first_in_context(small: "TestClient") -> None:
    top = feature(small)["feature"]["examples"]["top"]
    assert [(one["sample_index"], one["max_activation"]) for one in top] == [(7, 8.0), (8, 8.0), (9, 4.0), (10, 0.5)]
    assert shown_text(top[0]["context"]) == "<|endoftext|>The cat sat\n    on \\xe2\\x80\\x9cmats."
    assert shown_text(top[1]["context"]) == "<|endoftext|> \\xf0\\x9f\\x99\\x82 and the \\xff cat"


def test_characters_split_over_tokens_are_joined_for_people(small: "TestClient") -> None:
    page = plain_text(small.get("/small/one/0").text)
    assert "on “mats" in page
    assert "🙂 and the" in page


def test_a_twin_says_where_a_feature_fires_and_on_what_scale_it_is_shaded(small: "TestClient") -> None:
    found = feature(small)["feature"]["examples"]["top"][0]["context"]
    assert (found["positions"], found["activations"], found["scale"]) == ([2, 9], [8.0, 2.0], 8.0)
    assert (found["strongest"], found["special"], found["roles"]) == (2, [0], {})


def test_the_strongest_token_is_marked_and_the_others_shaded_by_the_features_maximum(small: "TestClient") -> None:
    page = small.get("/small/one/0").text
    assert 'class="t t20 peak" title=" cat · 8.00 · position 2"' in page
    assert 'class="t t5" title="mats · 2.00 · position 9"' in page


def test_a_shaded_token_says_its_activation_on_hover_and_aloud(small: "TestClient") -> None:
    page = small.get("/small/one/0").text
    assert (
        '<mark class="t t20 peak" title=" cat · 8.00 · position 2"> cat<span class="vh"> (8.00) </span></mark>' in page
    )


def test_special_tokens_are_dimmed(small: "TestClient") -> None:
    assert '<span class="sp">&lt;|endoftext|&gt;</span>' in small.get("/small/one/0").text


def test_special_tokens_are_known_by_their_ids_once_the_corpus_says_them(small: "TestClient", url: str) -> None:
    with opened_database(url) as engine, write_transaction(engine) as connection:
        connection.execute(sa.update(corpora).values(special_ids=[101]))
    for address in ("/small/one/0", "/small/one/samples/7", "/small/one/documents?id=a.txt", "/small/one/"):
        page = small.get(address).text
        assert '<span class="sp">The</span>' in page, address
        assert '<span class="sp">&lt;|endoftext' not in page, address


def test_who_speaks_is_said_as_show_says_it(small: "TestClient") -> None:
    page = small.get("/small/one/0").text
    assert '<b class="role">«user»</b>' in page
    assert '<b class="role">«assistant»</b>' in page


def test_a_window_is_as_wide_as_the_address_says(small: "TestClient") -> None:
    found = feature(small, "/small/one/0?window=all")["feature"]["examples"]["top"][0]["context"]
    assert (found["first"], found["stop"], found["length"]) == (0, 11, 11)


def test_white_space_is_visible_on_demand(small: "TestClient") -> None:
    assert '<span class="ws" aria-hidden="true">⏎⇢</span>' in small.get("/small/one/0").text
    assert '<span class="ws" aria-hidden="true">⏎····</span>' in small.get("/small/one/0?marks=1").text


def test_the_whole_sample_stands_in_its_lines(small: "TestClient") -> None:
    assert " sat\n    on" in small.get("/small/one/0?window=all").text


def test_intervals_come_with_population_share_and_draws(small: "TestClient") -> None:
    found = feature(small)["feature"]["examples"]["intervals"]
    seen = [(one["low"], one["high"], one["samples"], one["share"], len(one["examples"])) for one in found]
    assert seen == [(8.0, 12.0, 2, 0.5, 2), (1.0, 1.5, 1, 0.25, 0), (0.5, 0.75, 1, 0.25, 1)]


@pytest.mark.parametrize(("length", "reading"), [(128, (20, None)), (1024, (5, 1)), (100_000, (1, 1))])
def test_whole_samples_that_are_long_are_fewer(length: int, reading: tuple[int, int | None]) -> None:
    found = Reading(width=None).fitted(length)
    assert (found.top, found.drawn) == reading


def test_a_window_and_a_number_that_was_asked_for_stay() -> None:
    assert Reading(width=40).fitted(100_000) == Reading(width=40)
    assert Reading(width=None, top=100).fitted(1024).top == 100


def test_draws_that_are_not_shown_are_counted(url: str) -> None:
    with opened_database(url) as engine, engine.connect() as connection:
        extraction = find_extraction(connection, "small", "one")
        found = feature_view(connection, extraction, 0, Reading(drawn=1)).examples.intervals
    assert [(one.drawn, len(one.examples)) for one in found] == [(2, 1), (0, 0), (1, 1)]


def test_random_examples_are_those_drawn_from_all(small: "TestClient") -> None:
    assert [one["sample_index"] for one in feature(small)["feature"]["examples"]["random"]] == [9]


def test_a_result_without_draws_says_so(small: "TestClient") -> None:
    assert (
        "not computed: draws are made with `statistics: full`"
        in feature(small, "/other/one/0")["feature"]["examples"]["missing"]
    )
    assert "draws are made with" in small.get("/other/one/0").text


@pytest.mark.parametrize(("kept", "missing"), [(-1, "missing"), (46, "random_missing")])
def test_draws_that_the_settings_do_not_ask_for_are_not_said_to_be_uncomputed(
    url: str, kept: int, missing: str
) -> None:
    """The sizes of the draws are kept of one kind, which is there."""
    size = {"missing": "interval_examples", "random_missing": "random_examples"}[missing]
    drawn = [[kept, *EXAMPLES[0][0]]]
    with opened_database(url) as engine, write_transaction(engine) as connection:
        connection.execute(sa.update(feature_draw_lists).values(draws=drawn))
        connection.execute(sa.update(extractions).values(settings={"statistics": "full", size: 0}))
    with make_client(url) as client:
        examples = feature(client)["feature"]["examples"]
        assert (examples["missing"], examples["random_missing"]).count(None) == 1
        assert examples[missing] == f"none are drawn: {size} is 0"
        assert examples[missing] in client.get("/small/one/0").text


def test_a_population_that_was_not_counted_is_null(url: str) -> None:
    with opened_database(url) as engine, write_transaction(engine) as connection:
        connection.execute(sa.text("UPDATE features SET interval_samples = NULL"))
    with make_client(url) as client:
        assert [one["samples"] for one in feature(client)["feature"]["examples"]["intervals"]] == [None, None]
        assert "not counted" in client.get("/small/one/0").text


def test_a_feature_that_never_fires_says_so(small: "TestClient") -> None:
    page = small.get("/small/one/3").text
    assert "this feature never fires in this corpus" in page
    assert "Intervals of the whole range" not in page


def test_a_feature_below_the_minimum_says_so(small: "TestClient") -> None:
    assert "never above min_activation" in small.get("/small/one/4").text


@pytest.mark.parametrize(("index", "around"), [(0, (None, 1)), (2, (1, 3)), (5, (4, None))])
def test_previous_and_next_stop_at_the_ends(
    small: "TestClient", index: int, around: tuple[int | None, int | None]
) -> None:
    found = feature(small, f"/small/one/{index}")["around"]
    assert (found["previous"], found["next"]) == around


def test_a_random_feature_fires_and_is_another_one(small: "TestClient") -> None:
    for index in range(6):
        assert feature(small, f"/small/one/{index}")["around"]["shuffled"] in {0, 1, 2, 4, 5} - {index}


def test_paging_keeps_window_and_marks(small: "TestClient") -> None:
    page = small.get("/small/one/1?window=20&marks=1").text
    assert re.search(r'<a href="/small/one/2\?window=20&amp;marks=1" data-key="j ArrowRight"', page)


def test_every_key_of_the_page_is_its_own(small: "TestClient") -> None:
    keys = [
        key for found in re.findall(r'data-key="([^"]+)"', small.get("/small/one/1").text) for key in found.split(" ")
    ]
    assert {"j", "k", "r", "t", "i", "x", "m", "1", "2", "3", "4", "c", "u", "/", "?", "g"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_more_examples_are_one_link_away(small: "TestClient") -> None:
    assert len(feature(small, "/small/one/0?top=2")["feature"]["examples"]["top"]) == 2
    assert 'href="/small/one/0?top=4"' in small.get("/small/one/0?top=2").text


def test_an_example_links_its_sample_and_its_document(small: "TestClient") -> None:
    page = small.get("/small/one/0").text
    assert 'href="/small/one/samples/7?feature=0"' in page
    assert 'href="/small/one/documents?id=a.txt"' in page


def test_what_was_not_computed_says_what_to_do(small: "TestClient") -> None:
    found = feature(small)["feature"]
    assert found["relations_missing"] == "not computed for this result: materialize small/one/feature_relations"
    assert found["directions_missing"] == "not computed: materialize small/one/feature_directions"
    assert "materialize small/one/feature_relations" in small.get("/small/one/0").text


def test_relations_say_what_they_were_counted_over(small: "TestClient", url: str) -> None:
    add(url, store_relations)
    found = feature(small)["feature"]["relations"]
    assert found["scope"] == "counted over 1 in 16 samples, chosen by hash: 6 samples, 60 tokens"
    assert [(one["token"], one["firings"]) for one in found["firing"]] == [
        (" cat", 5),
        ("<script>alert(1)</script>", 2),
    ]
    assert [one["token"] for one in found["next"]] == [" sat"]
    assert [(one["neuron_index"], one["jaccard"], one["tokens"]) for one in found["neighbours"]] == [
        (1, 0.5, ["🙂"]),
        (2, 0.125, []),
    ]


def test_relations_of_an_earlier_result_are_not_shown(small: "TestClient", url: str) -> None:
    add(url, store_relations, "an earlier one")
    found = feature(small)["feature"]
    assert found["relations"] is None
    assert found["relations_missing"].startswith("not computed for this result")
    assert found["flags"] is None


def test_flags_are_chips_with_their_reason(small: "TestClient", url: str) -> None:
    add(url, store_relations)
    assert [one["name"] for one in feature(small)["feature"]["flags"]] == ["duplicate", "one_token"]
    assert "/compare?a=small%2Fone%2F0&amp;b=small%2Fone%2F2" in small.get("/small/one/0").text


def test_a_feature_that_was_not_seen_in_the_sample_has_no_top_tokens(small: "TestClient", url: str) -> None:
    add(url, store_relations)
    assert "it does not fire in what was looked at" in small.get("/small/one/2").text


def test_the_logit_lens_says_how_the_norm_entered(small: "TestClient", url: str) -> None:
    add(url, store_directions)
    lens = feature(small)["feature"]["directions"]["logit_lens"]
    assert (lens["norm"], lens["top"][0]["token"], lens["bottom"][0]["logit"]) == ("RMSNorm's gain", " dog", -0.5)
    assert [one["number"] for one in lens["histogram"]["bins"]] == [1, 4, 1]


def test_a_logit_lens_that_is_not_defined_says_why(small: "TestClient", url: str) -> None:
    add(url, store_directions, "the hook's output is not added to the residual stream")
    assert "not defined: the hook&#39;s output is not added to the residual stream" in small.get("/small/one/0").text


def test_a_decoder_row_of_zeros_is_no_direction(small: "TestClient", url: str) -> None:
    add(url, store_directions)
    assert (
        feature(small, "/small/one/1")["feature"]["directions"]["undefined"]
        == "its decoder row is zero, which is no direction"
    )


def test_nearest_rows_link_features_of_other_saes(small: "TestClient", url: str) -> None:
    add(url, store_directions)
    page = small.get("/small/one/0").text
    assert 'href="/small/two/2"' in page
    assert 'href="/small/one/1"' in page


@pytest.mark.parametrize("index", [0, 1, 3])
def test_the_parts_of_a_page_without_a_server_have_no_links(url: str, index: int) -> None:
    for store in (store_relations, store_directions):
        add(url, store)
    with opened_database(url) as engine, engine.connect() as connection:
        view = feature_view(connection, find_extraction(connection, "small", "one"), index)
    parts = environment().get_template("feature_parts.html").module
    text = f"{parts.facts(view, NoLinks())}{parts.flags(view, NoLinks())}{parts.texts(view, NoLinks(), Reading())}"  # type: ignore[attr-defined]
    assert "Provenance" in text
    assert not re.search(r"<a\b|href|style=", text)


def test_a_label_is_the_heading(small: "TestClient", url: str) -> None:
    add(url, store_label, "cats", "interesting", "of any kind")
    page = small.get("/small/one/0").text
    assert "<title>#0 cats · small/one</title>" in page
    assert feature(small)["feature"]["label"] == {"label": "cats", "mark": "interesting", "note": "of any kind"}


def test_provenance_names_corpus_result_and_numerics_but_no_folder(small: "TestClient") -> None:
    found = feature(small)["feature"]["provenance"]
    assert (found["corpus_fingerprint"], found["fingerprint"], found["model"]) == ("corpus1", "result1", "gpt")
    assert found["numerics"] == [{"device": "cpu", "dtype": "float32"}]


def test_a_result_that_kept_no_numerics_record_says_so(small: "TestClient") -> None:
    assert "not recorded in this result" in small.get("/other/one/0").text


def test_no_part_of_a_page_has_an_id_twice(small: "TestClient", url: str) -> None:
    add(url, store_relations)
    ids = re.findall(r' id="([^"]+)"', small.get("/small/one/0").text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/small/one/6", 404, "no feature 6: features are numbered from 0 to 5"),
        ("/small/one/99999999999999999999", 404, "no feature"),
        (f"/small/one/{'1' * 5000}", 404, "there is no page"),
        ("/small/one/samples/99999999999999999999", 404, "sample 99999999999999999999 is not stored"),
        ("/small/one/0?window=11", 400, "window=11 is not one of 10, 20, 40, all"),
        ("/small/one/0?top=0", 400, "top=0 is not a whole number from 1 to 1000"),
        ("/small/one/0?marks=2", 400, "marks=2 is not one of 0, 1"),
        ("/small/one/0?windw=20", 400, "there is no parameter"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(small: "TestClient", address: str, status: int, sentence: str) -> None:
    answer = small.get(address)
    assert (answer.status_code, sentence in html.unescape(answer.text)) == (status, True)


def test_tokens_of_neighbours_are_of_the_current_result_alone(url: str) -> None:
    add(url, store_relations, "an earlier one")
    with opened_database(url) as engine, engine.connect() as connection:
        assert first_tokens(connection, 1, [0, 1]) == {}


def test_the_link_to_all_examples_asks_for_no_more_than_a_page_shows(
    small: "TestClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extraction_assets.browser.pages.feature.MOST_TOP", 3)
    text = small.get("/small/one/0?top=2").text
    assert 'href="/small/one/0?top=3"' in text
    assert ">3 strongest examples" in text


FURTHER = [
    ["quantile", 0.5, 8.0, 4, []],
    ["maximum", 0.0, 4.0, 1, [[12, 0.5, "b", [31, 30], [0.5, 0.25], 21, ["x"] * 9 + ["a", "b", "c"]]]],
    ["maximum", 4.0, 8.0, 3, [[7, 8.0, " cat", [2], [8.0], 0, ["<|endoftext|>", "The", " cat", " sat"]]]],
]


def store_further(connection: sa.Connection) -> None:
    row = {"extraction_id": 1, "neuron_index": 0, "ranges": FURTHER}
    connection.execute(sa.insert(feature_ranges), [row])


def test_intervals_of_other_kinds_are_shown_from_the_strongest(small: "TestClient", url: str) -> None:
    add(url, store_relations)
    add(url, store_further)
    found = feature(small)["feature"]["examples"]["further"]
    assert [(one["kind"], one["low"], one["samples"], one["share"]) for one in found] == [
        ("maximum", 4.0, 3, 0.75),
        ("maximum", 0.0, 1, 0.25),
        ("quantile", 0.5, 4, 1.0),
    ]
    assert found[0]["examples"][0]["document_id"] == "a.txt"


def test_a_stored_sample_of_a_further_interval_has_its_links(small: "TestClient", url: str) -> None:
    add(url, store_relations)
    add(url, store_further)
    further = small.get("/small/one/0").text.partition('<section id="further">')[2].partition("</section>")[0]
    assert 'href="/small/one/samples/7?feature=0"' in further
    assert 'href="/small/one/documents?id=a.txt"' in further


def test_a_sample_of_a_further_interval_that_is_not_stored_has_the_positions_of_the_sample_and_no_link(
    small: "TestClient", url: str
) -> None:
    add(url, store_relations)
    add(url, store_further)
    text = small.get("/small/one/0").text
    assert "b · 0.500 · position 31" in text
    assert "a · 0.250 · position 30" in text
    assert "samples/12" not in text
    assert "<bdi>sample 12</bdi>" in text


def test_further_intervals_of_an_earlier_result_are_not_shown(small: "TestClient", url: str) -> None:
    add(url, store_relations, "an earlier one")
    add(url, store_further)
    assert feature(small)["feature"]["examples"]["further"] == []
