"""Links from Dagster's UI and from files to the browser."""

import logging

import pytest

from extraction_assets.browser.links import OutsideLinks
from extraction_assets.execution.links import browser_metadata, links_to_browser

LOGGER = logging.getLogger(__name__)


def test_an_asset_links_to_its_features_by_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_BROWSER_URL", "http://host:1")
    assert browser_metadata(links_to_browser(LOGGER), "demo", "layer1")["browser"].value == "http://host:1/demo/layer1/"


def test_a_wrong_address_is_a_warning_and_no_link(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EXTRACTION_BROWSER_URL", "javascript:alert(1)")
    assert browser_metadata(links_to_browser(LOGGER), "demo", "layer1") == {}
    assert "without links to the browser: EXTRACTION_BROWSER_URL is 'javascript:alert(1)'" in caplog.text


def test_links_from_outside_are_those_of_the_server_behind_its_address() -> None:
    links = OutsideLinks("https://host/of/us/")
    assert links.extractions() == "https://host/of/us/"
    assert links.feature("e", "s", 12) == "https://host/of/us/e/s/12"
    assert links.sample("e", "s", 3) == "https://host/of/us/e/s/samples/3"
    assert links.static("style.css") is None
