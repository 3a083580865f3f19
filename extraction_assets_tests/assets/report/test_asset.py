"""The report: a page on which the text of others is only text, and which fetches and runs nothing."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from extraction_assets.assets.report.page import render_report
from extraction_assets.assets.report.record import Recorded
from extraction_assets.assets.report.run import histograms, report_top
from extraction_assets.browser.links import OutsideLinks
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.writing.feature_examples import replace_results
from extraction_assets_tests.database.synthetic import CORPUS, make_results

HOSTILE = "<script>alert(1)</script><img src=http://x/y>\x1b[2J\u202egpj\r\n|`**"
SHOWN = r"<script>alert(1)</script><img src=http://x/y>\x1b[2J\u202egpj␍⏎|`**"


class _Page(HTMLParser):
    """Elements with their attributes, and the text of each kind of element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, _tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The page and its beginning as Markdown, of results whose every text is hostile."""
    path: Path = tmp_path_factory.mktemp("report") / "results.sqlite"
    made = make_results("f", 1.5, num_features=3, top_k=2)
    settings = {"saes": {"s": {"release": "some-release", "sae_id": HOSTILE}}}
    extraction = made.extraction._replace(hook=HOSTILE, name="e", sae="s", settings=settings)
    corpus = CORPUS._replace(document_ids=[HOSTILE])

    def display(ids: list[int]) -> list[str]:
        return [f"{HOSTILE}{token}" for token in ids]

    engine = open_database(f"sqlite:///{path}")
    with write_transaction(engine) as connection:
        replace_results(connection, extraction, corpus, made.table, made.statistics, display)
    with engine.connect() as connection:
        row = find_extraction(connection, "e")
        pictures = histograms(connection, row)
        unknown = Recorded([], [], None, HOSTILE)
        page = render_report(connection, row, pictures, unknown, None, OutsideLinks("http://127.0.0.1:3080"))
        top = report_top(connection, row, pictures, 1)
    engine.dispose()
    return page, top


def test_the_policy_allows_the_style_sheet_of_the_page_and_nothing_else(rendered: tuple[str, str]) -> None:
    page = _Page(rendered[0])
    (policy,) = (attributes["content"] for _, attributes in page.elements if "http-equiv" in attributes)
    (style,) = page.texts["style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_nothing_on_the_page_needs_what_the_policy_forbids(rendered: tuple[str, str]) -> None:
    for tag, attributes in _Page(rendered[0]).elements:
        assert tag not in ("script", "img", "link", "iframe", "form")
        assert not {name for name in attributes if name in ("style", "src") or name.startswith("on")}


def test_links_lead_to_the_browser_alone(rendered: tuple[str, str]) -> None:
    links = [attributes["href"] for tag, attributes in _Page(rendered[0]).elements if tag == "a"]
    assert "http://127.0.0.1:3080/e/s/" in links
    assert "http://127.0.0.1:3080/e/s/2" in links
    assert all(link is not None and link.startswith("http://127.0.0.1:3080/e/s/") for link in links)


def test_document_ids_hooks_and_tokens_are_text_that_can_be_seen(rendered: tuple[str, str]) -> None:
    page = _Page(rendered[0])
    assert set(page.texts["bdi"]) >= {SHOWN}
    assert any(f" at {SHOWN}," in text for text in page.texts["p"])
    assert any(text.startswith(SHOWN.partition("␍")[0]) for text in page.texts["mark"])


def test_the_page_names_a_published_sae_as_its_settings_do(rendered: tuple[str, str]) -> None:
    assert any(f"3 features of some-release/{SHOWN} at " in text for text in _Page(rendered[0]).texts["p"])


def test_no_control_character_reaches_page_or_markdown(rendered: tuple[str, str]) -> None:
    for text in rendered:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_a_firing_token_has_a_shade_of_the_style_sheet(rendered: tuple[str, str]) -> None:
    page = _Page(rendered[0])
    assert {attributes["class"] for tag, attributes in page.elements if tag == "mark"} == {"t t20 peak"}
    assert ".t20 {" in page.texts["style"][0]


def test_markup_does_not_leave_its_place_in_markdown(rendered: tuple[str, str]) -> None:
    first, *_, row = rendered[1].splitlines()
    assert f"features at ``{SHOWN}``,".replace("|", "\\|") in first
    cells = re.split(r"(?<!\\)\|", row)
    assert len(cells) == 6
    assert "<" not in cells[4].replace("\\<", "")


def test_the_page_names_what_an_earlier_version_did_not_count(rendered: tuple[str, str]) -> None:
    assert "UTC. std_activation is not known in this result: some of its chunks are of an earlier" in rendered[0]
