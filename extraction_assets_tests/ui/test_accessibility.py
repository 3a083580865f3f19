"""axe-core finds nothing serious on any page, light and dark: names, roles, landmarks, contrast of every shade."""

import subprocess
from pathlib import Path

import pytest

from extraction_assets_tests.ui.browser import Browser
from extraction_assets_tests.ui.conftest import PROGRAM, environment_of
from extraction_assets_tests.ui.reading import PHONE, Reader

pytestmark = pytest.mark.ui

PAGES = {
    "extractions": "/",
    "features": "/demo/layer1/",
    "found": "/demo/layer1/?q=self&min_density=0.0001",
    "none-found": "/demo/layer1/?q=zzzzzz",
    "feature": "/demo/layer1/2963",
    "white-space": "/demo/layer1/12?marks=1&top=5",
    "compare": "/compare?a=demo/layer1/12&b=demo/layer1/13",
    "labels": "/labels/demo",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(reader: Reader, name: str, scheme: str) -> None:
    reader.look(scheme=scheme)
    reader.open(PAGES[name])
    assert reader.axe() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_a_sample_and_its_document(reader: Reader, scheme: str) -> None:
    reader.look(scheme=scheme)
    reader.open("/demo/layer1/12")
    places = [reader.all(f"#top a.{kind}")[0].get_attribute("href") for kind in ("val", "doc")]
    for place in places:
        reader.open(str(place))
        assert reader.axe() == []


@pytest.mark.parametrize("name", ["features", "feature"])
def test_axe_finds_nothing_serious_on_a_phone(reader: Reader, name: str) -> None:
    reader.look(width=PHONE)
    reader.open(PAGES[name])
    assert reader.axe() == []


def test_axe_finds_nothing_serious_in_open_forms_keys_and_sql(reader: Reader) -> None:
    reader.open("/demo/layer1/12?top=1")
    reader.script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert reader.axe() == []
    reader.press("?")
    assert reader.axe() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_an_error(reader: Reader, scheme: str) -> None:
    reader.look(scheme=scheme)
    reader.open("/demo/layer1/99999")
    assert reader.axe() == []
    assert all("404" in error for error in reader.errors())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_reports(
    shared_browser: Browser, demo_home: Path, tmp_path: Path, scheme: str
) -> None:
    file = tmp_path / "report.html"
    command = [PROGRAM, "report", "demo", "--features", "12,201", "--out", str(file)]
    subprocess.run(command, check=True, env=environment_of(demo_home), cwd=tmp_path, timeout=120)
    reader = Reader(shared_browser, "")
    reader.look(scheme=scheme)
    for path in (file, demo_home / "demo" / "layer1" / "feature_report" / "report.html"):
        reader.open(path.as_uri())
        assert reader.axe() == []


def test_axe_notices_text_that_cannot_be_read(reader: Reader) -> None:
    reader.open("/labels/demo")
    reader.script("document.querySelector('h1').style.color = '#eee'")
    assert any("color-contrast" in one for one in reader.axe())
