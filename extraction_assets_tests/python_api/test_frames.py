"""The frames of a result say what the database and the browser say."""

import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from extraction_assets.database.queries.extractions import UnknownResultError
from extraction_assets.engine.statistics.registry import COLUMNS
from extraction_assets.python_api.errors import NotComputedError
from extraction_assets.python_api.extraction import ExtractionResults
from extraction_assets.python_api.results import Results
from extraction_assets_tests.browser.conftest import make_client
from extraction_assets_tests.browser.small_results import EXAMPLES, HOSTILE, SAMPLES, statistics
from extraction_assets_tests.project import Project

if TYPE_CHECKING:
    from starlette.testclient import TestClient


@pytest.fixture(scope="module")
def client(small_url: str) -> Iterator["TestClient"]:
    with make_client(small_url) as client:
        yield client


def test_features_have_every_statistic(small: ExtractionResults) -> None:
    frame = small.features()
    assert list(frame.columns) == [column.name for column in COLUMNS]
    for index in (0, 1, 5):
        row = statistics(index)
        assert {name: frame.loc[index][name] for name in frame.columns} == {name: row[name] for name in frame.columns}


def test_a_feature_that_never_fires_has_no_maximum(small: ExtractionResults) -> None:
    assert small.features().loc[3]["activation_count"] == 0
    assert pd.isna(small.features().loc[3]["max_activation"])


def test_examples_have_tokens_and_a_value_for_each(small: ExtractionResults) -> None:
    frame = small.examples(0)
    assert frame.index.tolist() == [0, 1, 2, 3]
    assert [frame.loc[rank]["tokens"] for rank in (0, 3)] == [SAMPLES[7][2], SAMPLES[10][2]]
    assert frame.loc[0]["values"].tolist() == [0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0]


def test_examples_are_those_of_the_browser(small: ExtractionResults, client: "TestClient") -> None:
    shown = client.get("/small/one/0.json").json()["feature"]["examples"]["top"]
    frame = small.examples(0)
    assert frame["sample_index"].tolist() == [one["sample_index"] for one in shown]
    assert frame["max_activation"].tolist() == [one["max_activation"] for one in shown]
    assert [*frame["positions"]] == [example[3] for example in EXAMPLES[0]]


def test_a_limit_gives_the_first_examples(small: ExtractionResults) -> None:
    assert small.examples(0, limit=2)["sample_index"].tolist() == [7, 8]


def test_a_part_of_the_examples_is_a_plain_frame(small: ExtractionResults) -> None:
    assert type(small.examples(0)[["max_activation"]]) is pd.DataFrame


def test_examples_say_who_speaks(small: ExtractionResults) -> None:
    user, assistant = small.examples(0).loc[3]["messages"]
    assert (user, assistant["role"]) == ({"role": "user", "start": 3, "stop": 4}, "assistant")
    assert small.sample(10).attrs["messages"] == [user, assistant]


@pytest.mark.parametrize("call", [lambda of: of.examples(0), lambda of: of.draws(0), lambda of: of.sample(7)])
def test_frames_can_be_stored(
    small: ExtractionResults, tmp_path: Path, call: Callable[[ExtractionResults], pd.DataFrame]
) -> None:
    frame = call(small)
    frame.to_parquet(tmp_path / "frame.parquet")
    assert pd.read_parquet(tmp_path / "frame.parquet").index.tolist() == frame.index.tolist()
    assert b"ShownFrame" not in pickle.dumps(frame)


def test_draws_come_by_interval(small: ExtractionResults) -> None:
    assert small.draws(0).index.tolist() == [(-1, 0), (38, 0), (46, 0), (46, 1)]


def test_a_notebook_shows_examples_as_the_browser_does(small: ExtractionResults, client: "TestClient") -> None:
    page = client.get("/small/one/0?window=20").text
    shown = small.examples(0)._repr_html_()
    texts = [line.strip() for line in page.splitlines() if line.strip().startswith('<span class="ctx">')]
    assert len(texts) > 4  # intervals have some of them again
    assert all(text in shown for text in texts[:4])


def test_a_notebook_shows_no_markup_of_others(small: ExtractionResults) -> None:
    for html in (small.examples(1)._repr_html_(), small.sample(9)._repr_html_()):
        assert HOSTILE not in html
        assert "&lt;script&gt;" in html
        assert "href" not in html


def test_styles_hold_inside_the_fragment_alone(small: ExtractionResults) -> None:
    style = small.examples(0)._repr_html_().partition("<style>")[2].partition("</style>")[0]
    assert style.startswith("@scope (.extraction-assets) {")
    assert ".t20 {" in style
    assert "body" not in style


def test_many_examples_are_shown_in_part(relu: ExtractionResults) -> None:
    html = relu.examples(0)._repr_html_()
    assert html.count("<li>") == len(relu.examples(0)) <= 20


def test_a_search_finds_what_the_browser_finds(small: ExtractionResults, client: "TestClient") -> None:
    shown = client.get("/small/one/.json", params={"q": "cat"}).json()
    found = small.search("cat")
    assert found.index.tolist() == [one["neuron_index"] for one in shown["features"]]
    assert found["hits"].tolist() == [one["hits"] for one in shown["features"]]
    assert found["max_activation"].tolist() == [one["maximum"] for one in shown["features"]]
    assert found.attrs["found_by"] == "token"


@pytest.mark.parametrize("by", ["token", "text", "label"])
def test_a_search_looks_where_it_is_told_to(small: ExtractionResults, client: "TestClient", by: str) -> None:
    shown = client.get("/small/one/.json", params={"q": "cat", "by": by}).json()
    found = small.search("cat", by=by)  # type: ignore[arg-type]
    assert found.index.tolist() == [one["neuron_index"] for one in shown["features"]]
    assert (len(found) > 0, found.attrs["found_by"]) == (True, by)


def test_a_number_finds_its_feature(small: ExtractionResults) -> None:
    assert small.search("#4").index.tolist() == [4]


def test_what_is_not_found_is_an_empty_frame(small: ExtractionResults) -> None:
    assert len(small.search("xylophone")) == 0


@pytest.mark.parametrize(
    ("text", "by", "message"),
    [("", None, "nothing to search for"), ("cat", "words", "not one of"), ("ca", "text", "at least 3 characters")],
)
def test_a_search_that_cannot_be_made_says_why(small: ExtractionResults, text: str, by: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small.search(text, by=by)  # type: ignore[arg-type]


def test_a_search_refuses_a_nul_and_less_than_no_feature(small: ExtractionResults) -> None:
    with pytest.raises(ValueError, match="holds a NUL"):
        small.search("a\0b")
    with pytest.raises(ValueError, match="limit is -1"):
        small.search("cat", limit=-1)


def test_a_sample_has_its_features_by_token(small: ExtractionResults, client: "TestClient") -> None:
    shown = client.get("/small/one/samples/7.json").json()["tokens"]
    frame = small.sample(7)
    assert frame["token"].tolist() == SAMPLES[7][2]
    for position, row in frame.iterrows():
        firings = [(one["neuron_index"], one["activation"]) for one in shown[position]["firings"]]  # type: ignore[index]
        assert list(zip(row["features"], row["activations"], strict=True)) == firings
    assert frame.attrs["document_id"] == "a.txt"


def test_neighbours_fire_together(small: ExtractionResults) -> None:
    frame = small.neighbours(0)
    assert frame.to_numpy().tolist() == [[1, 4, 0.5, 2.0], [2, 1, 0.125, -1.0]]
    assert list(frame.columns) == ["neuron_index", "tokens", "jaccard", "pmi"]


def test_neighbours_by_decoder_are_of_all_saes(small: ExtractionResults) -> None:
    assert small.neighbours(0, by="decoder").to_numpy().tolist() == [["two", 2, 0.75], ["one", 1, 0.5]]


def test_top_tokens_come_by_rank(small: ExtractionResults) -> None:
    assert small.tokens(0)["token"].tolist() == [" cat", HOSTILE]
    assert small.tokens(0, place="next")["token"].tolist() == [" sat"]


def test_logits_are_of_both_sides(small: ExtractionResults) -> None:
    assert small.logits(0).to_numpy().tolist() == [["top", 5, " dog", 1.25], ["bottom", 6, HOSTILE, -0.5]]


def test_flags_have_their_details(small: ExtractionResults) -> None:
    assert small.flags(0)["duplicate"] == {"of": 2, "jaccard": 0.97, "count": 7}


def test_labels_are_what_people_wrote(small: ExtractionResults) -> None:
    frame = small.labels()
    assert frame.index.tolist() == [0]
    assert frame.loc[0][["label", "mark", "note"]].tolist() == ["the cat", "interesting", ""]


def test_what_was_not_computed_names_the_asset(relu: ExtractionResults) -> None:
    for wanted, asset in (
        (lambda: relu.neighbours(0), "feature_relations"),
        (lambda: relu.tokens(0), "feature_relations"),
        (lambda: relu.logits(0), "feature_directions"),
        (lambda: relu.neighbours(0, by="decoder"), "feature_directions"),
    ):
        with pytest.raises(NotComputedError, match=f"materialize tiny/relu/{asset}"):
            wanted()


def test_a_logit_lens_that_is_not_defined_says_why(small: ExtractionResults) -> None:
    with pytest.raises(NotComputedError, match="feature 1 of small/one has no logit lens: its decoder row is zero"):
        small.logits(1)


@pytest.mark.parametrize("call", ["examples", "draws", "neighbours", "tokens", "logits", "flags"])
@pytest.mark.parametrize("index", [-1, 6, 2**70])
def test_an_unknown_feature_says_which_there_are(small: ExtractionResults, call: str, index: int) -> None:
    with pytest.raises(UnknownResultError, match="features are numbered from 0 to 5"):
        getattr(small, call)(index)


def test_an_unknown_sample_says_what_is_stored(small: ExtractionResults) -> None:
    with pytest.raises(UnknownResultError, match="sample 42 is not stored: "):
        small.sample(42)


def test_a_merged_result_reads_the_same_from_each_database(merged_url: str, results: Results) -> None:
    from extraction_assets import open_results

    with open_results(merged_url) as found:
        one, other = found["tiny/relu"], results["tiny/relu"]
        pd.testing.assert_frame_equal(one.features(), other.features())
        for index in range(10):
            here, there = one.examples(index), other.examples(index)
            assert [*map(tuple, here["values"])] == [*map(tuple, there["values"])]
            assert here.drop(columns="values").to_numpy().tolist() == there.drop(columns="values").to_numpy().tolist()


def test_values_are_the_numbers_of_the_database(relu: ExtractionResults, project: Project) -> None:
    rows = project.rows("SELECT max_activation FROM feature_activations WHERE extraction_id = 1 AND neuron_index = 3")
    frame = relu.examples(3)
    assert frame["max_activation"].tolist() == [float(np.float32(value)) for (value,) in rows]
    assert [float(np.max(values)) for values in frame["values"]] == frame["max_activation"].tolist()


@pytest.mark.parametrize("given", ["3", 3.0, True, np.True_, None])
def test_what_is_no_whole_number_is_no_feature(relu: ExtractionResults, given: Any) -> None:
    said = f"neuron_index is {given!r}, a {type(given).__name__}: give a whole number"
    for call in (relu.examples, relu.draws, relu.logits, relu.tokens, relu.neighbours, relu.flags, relu.decoder):
        with pytest.raises(TypeError, match=re.escape(said)):
            call(given)


def test_a_number_of_numpy_is_a_feature(relu: ExtractionResults) -> None:
    assert relu.examples(np.int64(3)).equals(relu.examples(3))
