"""Try a sentence: what the page does with a text and its result. ``execution/test_live.py`` has the numbers."""

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

from extraction_assets.browser.live import (
    LiveBusyError,
    LiveFeature,
    LiveFiring,
    LivePlace,
    LiveResult,
    LiveToken,
)
from extraction_assets_tests.browser.conftest import make_client
from extraction_assets_tests.project import Project

if TYPE_CHECKING:
    from starlette.testclient import TestClient

HOSTILE = "<script>alert(1)</script>\u202e\x1b[2J"


class Echo:
    """A live model whose tokens are the characters of the text; feature 7 fires on every one but the first."""

    extraction = "tiny"
    saes = ("relu", "topk")

    def __init__(self) -> None:
        self.texts: list[str] = []

    def submit(self, text: str, sae: str) -> "Future[LiveResult]":
        self.texts.append(text)
        if text == "busy":
            raise LiveBusyError("3 texts are waiting already: try again in a moment")
        tokens = [LiveToken(0, "<bos>", False, [], 0)]
        tokens += [LiveToken(at, ch, True, [LiveFiring(7, float(at))], 1) for at, ch in enumerate(text, 1)]
        places = [LivePlace(0, at, float(at)) for at in range(len(text), 0, -1)]
        feature = LiveFeature(7, float(len(text)), places)
        future: Future[LiveResult] = Future()
        future.set_result(LiveResult(sae, "layers.0", [tokens], [feature], 1, False, "cpu", "as stored"))
        return future


@pytest.fixture
def live(project: Project) -> Any:
    echo = Echo()
    with make_client(project.url, live=echo) as client:
        client.echo = echo  # type: ignore[attr-defined]
        yield client


def test_without_live_there_is_no_page_and_no_link(client: "TestClient") -> None:
    answer = client.get("/tiny/relu/try?text=a")
    assert answer.status_code == 404
    assert "started without --live" in answer.text
    assert "/try" not in client.get("/tiny/relu/").text


def test_a_text_shows_its_features_by_token_each_linked(live: "TestClient") -> None:
    text = live.get("/tiny/relu/try?text=ab").text
    assert text.count('href="/tiny/relu/7"') >= 3
    assert "as stored" in text


def test_the_text_is_shaded_by_the_strongest_feature(live: "TestClient") -> None:
    text = live.get("/tiny/relu/try?text=ab").text
    assert 'class="t t10" title="a · 1.00 · position 1"' in text
    assert 'class="t t20 peak" title="b · 2.00 · position 2"' in text


def test_the_twin_has_the_whole_result(live: "TestClient") -> None:
    found = live.get("/tiny/relu/try.json?text=ab").json()
    assert found["result"]["samples"][0][2]["firings"] == [{"neuron_index": 7, "activation": 2.0}]
    assert found["chosen"]["neuron_index"] == 7


def test_line_breaks_of_a_form_are_those_of_the_text(live: Any) -> None:
    live.get("/tiny/relu/try?text=a%0D%0Ab")
    assert live.echo.texts == ["a\nb"]


def test_a_text_keeps_its_first_line_break_in_the_form(live: "TestClient") -> None:
    """HTML drops one line break after the tag of a textarea."""
    assert ">\n\na</textarea>" in live.get("/tiny/relu/try?text=%0Aa").text


def test_a_text_that_cannot_be_run_stays_in_the_form_with_a_sentence(live: "TestClient") -> None:
    answer = live.get("/tiny/relu/try?text=busy")
    assert answer.status_code == 200
    assert "3 texts are waiting already" in answer.text
    assert ">\nbusy</textarea>" in answer.text


def test_a_hostile_text_is_only_text(live: "TestClient") -> None:
    page = live.get("/tiny/relu/try", params={"text": HOSTILE}).text
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/other/relu/try", "extraction &#39;tiny&#39; here, not with &#39;other&#39;"),
        ("/tiny/none/try", "no SAE &#39;none&#39; in tiny: there are relu, topk"),
    ],
)
def test_another_extraction_or_sae_is_one_sentence(live: "TestClient", address: str, sentence: str) -> None:
    answer = live.get(address)
    assert answer.status_code == 404
    assert sentence in answer.text


def test_a_chosen_feature_that_does_not_fire_shades_nothing(live: "TestClient") -> None:
    assert live.get("/tiny/relu/try.json?text=ab&feature=8").json()["chosen"] is None
