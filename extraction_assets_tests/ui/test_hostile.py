"""Texts, names and notes that want to be code stay text: nothing runs, and every answer has the policy."""

import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from extraction_assets.browser.one_file import features_page
from extraction_assets.database import tables
from extraction_assets.database.connect import opened_database
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets_tests.browser import small_results
from extraction_assets_tests.ui.browser import Browser
from extraction_assets_tests.ui.conftest import browsing
from extraction_assets_tests.ui.reading import Reader

pytestmark = pytest.mark.ui

RUN = "window.hurt=1;alert(1)"
HOSTILE = (
    f"<script>{RUN}</script>",
    f'"><img src=x onerror="{RUN}">',
    f"'><svg onload='{RUN}'>",
    f"</style><script>{RUN}</script>",
    f"</title></textarea></script><script>{RUN}</script>",
    f"<iframe srcdoc='<script>top.{RUN}</script>'>",
    f"javascript:{RUN}",
    f"{{{{ 7*7 }}}}{{% raw %}}${{{RUN}}}",
    "\u202egpj.exe\u2066",
    "\x1b[2J\x1b]0;hurt\x07",
    "a\\x00b",
    f"<a href='javascript:{RUN}'>click</a>",
    "&lt;script&gt;&#x3c;script>",
    "x" * 30_000,
)
PAGES = (
    "/",
    "/small/one/",
    "/small/one/?q=script",
    "/small/one/?q=%3Cscript%3E",
    "/small/one/0?window=all",
    "/small/one/0?window=all&marks=1",
    "/small/one/1",
    "/small/one/samples/7",
    "/small/one/samples/9",
    "/compare?a=small/one/0&b=small/one/1",
    "/labels/small",
    "/%3Cscript%3Ealert(1)%3C%2Fscript%3E/",
    "/compare?a=%3Cscript%3Ewindow.hurt=1%3C/script%3E",
)


RISKY = """
const runs = (one) => one.name.startsWith("on")
  || (["href", "src", "action"].includes(one.name) && /^\\W*javascript:/i.test(one.value));
return [...document.querySelectorAll("*")].filter((element) => [...element.attributes].some(runs)).length;
"""
"""How many elements run something of their own when they are clicked, loaded or sent."""


def _poison(connection: sa.Connection) -> None:
    """Every text of the database that comes from outside becomes hostile."""
    tokens = [*HOSTILE, "end"]
    hot = [[at, 8.0 - at / 4] for at in range(len(HOSTILE))]
    row = {"tokens": tokens, "token_ids": list(range(len(tokens)))}
    for index, document in ((7, HOSTILE[1]), (8, HOSTILE[6]), (9, HOSTILE[0]), (10, HOSTILE[3] + HOSTILE[8])):
        here = tables.samples.c.sample_index == index
        connection.execute(sa.update(tables.samples).where(here).values(document_id=document, **row))
    examples = [[index, 8.0, HOSTILE[0], [at for at, _ in hot], [value for _, value in hot]] for index in (7, 8, 9, 10)]
    lists = tables.feature_example_lists
    connection.execute(sa.update(lists).where(lists.c.neuron_index < 2).values(examples=examples))
    connection.execute(sa.update(tables.sample_messages).values(stop=2, start=1, role=HOSTILE[1]))
    names = {"model": HOSTILE[0], "hook": HOSTILE[1]}
    connection.execute(sa.update(tables.extractions).values(settings={"name": HOSTILE[3]}, **names))
    connection.execute(sa.update(tables.corpora).values(source=HOSTILE[2], tokenizer=HOSTILE[4]))
    small_results.store_label(connection, HOSTILE[3], None, "\n".join(HOSTILE[:-1]).replace("\x07", ""))


@pytest.fixture(scope="module")
def hostile_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hostile")
    url = f"sqlite:///{home / 'results.sqlite'}"
    small_results.store_results(url)
    with opened_database(url) as engine, engine.begin() as connection:
        small_results.store_relations(connection)
        small_results.store_directions(connection)
        connection.execute(sa.update(tables.feature_tokens).values(token=HOSTILE[1]))
        _poison(connection)
    return home


@pytest.fixture(scope="module")
def hostile_address(hostile_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browsing(hostile_home, tmp_path_factory.mktemp("hostile-server")) as address:
        yield address


@pytest.fixture
def reader(shared_browser: Browser, hostile_address: str) -> Iterator[Reader]:
    reading = Reader(shared_browser, hostile_address)
    reading.errors()
    yield reading
    assert [error for error in reading.errors() if "404" not in error and "400" not in error] == []


def nothing_ran(reader: Reader) -> None:
    """An open dialog would be an error of the driver here."""
    assert reader.script("return window.hurt === undefined")
    assert reader.script("return document.querySelectorAll('img, iframe, object, embed').length") == 0
    assert reader.script("return document.querySelectorAll('script:not([src])').length") == 0
    assert reader.script(RISKY) == 0


@pytest.mark.parametrize("page", PAGES)
def test_hostile_texts_stay_text(reader: Reader, page: str) -> None:
    reader.open(page)
    nothing_ran(reader)


def test_the_texts_are_there_as_text(reader: Reader) -> None:
    reader.open("/small/one/0?window=all")
    shown = reader.browser.text
    assert HOSTILE[0] in shown
    assert HOSTILE[3] in shown
    assert "\u202e" not in shown
    assert "\x1b" not in shown


def test_every_link_of_a_hostile_feature_leads_to_a_page_of_this_server(reader: Reader) -> None:
    reader.open("/small/one/0?window=all")
    links = {str(link.get_attribute("href")) for link in reader.all("a[href]")}
    assert all(link.startswith(f"{reader.address}/") for link in links)
    for link in sorted(link for link in links if "/documents?" in link):
        reader.open(link)
        nothing_ran(reader)
        assert reader.all("ol.ex > li")


def test_a_hostile_page_does_not_scroll_sideways(reader: Reader) -> None:
    for width in (390, 1440):
        reader.look(width=width)
        for page in PAGES:
            reader.open(page)
            assert reader.sideways() == 0, (page, width)


@pytest.mark.parametrize("page", [*PAGES, "/static/keys.js", "/small/one/0.json", "/labels/small.jsonl", "/nothing"])
def test_the_policy_is_in_the_header_of_every_answer(hostile_address: str, page: str) -> None:
    address = urlsplit(hostile_address).netloc
    with contextlib.closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("GET", page)
        policy = str(connection.getresponse().headers["content-security-policy"])
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_twin_is_json_and_no_page(reader: Reader) -> None:
    reader.open("/small/one/0.json")
    assert reader.script("return document.contentType") == "application/json"
    nothing_ran(reader)


def test_a_label_typed_into_the_form_stays_text(reader: Reader) -> None:
    reader.open("/small/one/5")
    reader.press("l")
    reader.fill("[name=label]", HOSTILE[0])
    reader.fill("[name=note]", HOSTILE[4])
    reader.click(".edit form button")
    nothing_ran(reader)
    assert reader.texts("h1 .label") == [HOSTILE[0]]
    reader.open("/labels/small")
    nothing_ran(reader)
    assert HOSTILE[4] in reader.browser.text


def test_a_report_in_one_file_runs_nothing(shared_browser: Browser, hostile_home: Path, tmp_path: Path) -> None:
    with opened_database(f"sqlite:///{hostile_home / 'results.sqlite'}") as engine, engine.connect() as connection:
        html = features_page(connection, find_extraction(connection, "small", "one"), [0, 1, 2], HOSTILE[3])
    file = tmp_path / "report.html"
    file.write_text(html, "utf-8")
    reader = Reader(shared_browser, "")
    reader.errors()
    reader.open(file.as_uri())
    nothing_ran(reader)
    assert len(reader.all("article")) == 3
    (policy,) = reader.all("meta[http-equiv=Content-Security-Policy]")
    assert "default-src 'none'" in str(policy.get_attribute("content"))
    assert reader.errors() == []


def test_the_policy_stops_a_script_that_becomes_part_of_a_page(reader: Reader) -> None:
    reader.open("/")
    reader.script(
        "const one = document.createElement('div'); document.body.append(one); "
        "try { one.innerHTML = arguments[0]; } catch (error) { window.refused = String(error); }",
        HOSTILE[1],
    )
    assert "TrustedHTML" in reader.script("return window.refused")
    nothing_ran(reader)
    assert all("TrustedHTML" in error for error in reader.errors())
