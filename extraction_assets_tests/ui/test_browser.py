"""The demo's features read as users do: every page of the real ``browse``, by mouse and keys."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from extraction_assets_tests.ui.browser import Browser
from extraction_assets_tests.ui.conftest import PROGRAM, browsing, environment_of
from extraction_assets_tests.ui.reading import DESK, PHONE, Reader

pytestmark = pytest.mark.ui

FEATURES = "/demo/layer1/"
FEATURE = "/demo/layer1/12"
NUMBERS = "td.num"


def column(reader: Reader, name: str) -> list[float]:
    """A column of numbers of the list."""
    texts = [text.removesuffix(" %").replace(",", "") for text in reader.texts(f"td.c-{name}")]
    return [float(text) for text in texts if text]


def test_the_extractions_lead_to_their_features(reader: Reader) -> None:
    reader.open("/")
    reader.picture("browser-extractions")
    reader.follow("demo / layer1")
    assert reader.path == FEATURES
    assert reader.texts(".tabs .on") == ["Features 4,096"]
    reader.picture("browser-features")


@pytest.mark.parametrize("name", ["density", "maximum", "mean", "std"])
def test_a_heading_sorts_the_features_and_turns_them_round(reader: Reader, name: str) -> None:
    reader.open(f"{FEATURES}?sort=number")
    reader.click(f"th.c-{name} a")
    falling = column(reader, name)
    reader.click(f"th.c-{name} a")
    rising = column(reader, name)
    assert len(falling) > 20
    assert falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)
    assert rising[0] < falling[0]


def test_pages_of_the_list_follow_each_other_and_lead_back(reader: Reader) -> None:
    reader.open(FEATURES)
    first = reader.texts(NUMBERS)
    reader.go(lambda: reader.press("n"))
    second = reader.texts(NUMBERS)
    reader.go(lambda: reader.press("p"))
    assert not set(first) & set(second)
    assert reader.texts(NUMBERS) == first


def test_a_region_dragged_on_the_plot_is_all_that_is_listed(reader: Reader) -> None:
    reader.open(FEATURES)
    (plot,) = reader.all("svg.scatter")
    drag = ActionChains(reader.driver).move_to_element_with_offset(plot, -40, -60)
    reader.go(drag.click_and_hold().move_by_offset(120, 80).release().perform)
    low, high = (float(reader.all(f"[name={end}_maximum]")[0].get_attribute("value") or 0) for end in ("min", "max"))
    assert 0 < low < high
    assert all(low * 0.99 <= value <= high * 1.01 for value in column(reader, "maximum"))
    assert column(reader, "maximum")
    assert reader.all("svg.scatter rect.brush")
    reader.picture("browser-region")
    reader.go(lambda: reader.press("x"))
    assert reader.texts(".tabs .on") == ["Features 4,096"]


def test_a_region_typed_into_the_form_is_all_that_is_listed(reader: Reader) -> None:
    reader.open(FEATURES)
    reader.all("details.filter summary")[0].click()
    reader.fill("[name=min_density]", "0.001")
    field = reader.fill("[name=max_density]", "0.01")
    reader.go(lambda: field.send_keys(Keys.ENTER))
    assert column(reader, "density")
    assert all(0.0999 <= percent <= 1.001 for percent in column(reader, "density"))


def test_a_facet_counts_what_it_then_shows(reader: Reader) -> None:
    reader.open(FEATURES)
    (count,) = [item.text.split("\n")[-1] for item in reader.all(".facet li") if item.text.startswith("dense")]
    reader.follow("dense", within=".facet")
    assert reader.texts(".tabs .on") == [f"Features {count.split()[-1]}"]
    assert all(percent > 10 for percent in column(reader, "density"))


def test_a_token_is_searched_from_the_header_by_keys(reader: Reader) -> None:
    reader.open(FEATURES)
    reader.press("/")
    reader.go(lambda: reader.press(" self", Keys.ENTER))
    assert reader.all(NUMBERS)
    assert reader.texts("td.toks")
    assert any("self" in text for text in reader.texts("td.toks"))


def test_a_text_of_the_examples_is_found(reader: Reader) -> None:
    reader.open(FEATURES)
    reader.press("/")
    reader.go(lambda: reader.press("subprocess.P", Keys.ENTER))
    assert reader.all(NUMBERS)
    assert "text of examples" in " ".join(reader.texts(".found .on"))


def test_a_number_leads_to_its_feature(reader: Reader) -> None:
    reader.open(FEATURES)
    reader.press("/")
    reader.go(lambda: reader.press("#12", Keys.ENTER))
    assert reader.path == FEATURE


def test_rows_are_stepped_through_and_opened_by_keys(reader: Reader) -> None:
    reader.open(FEATURES)
    second = reader.texts(NUMBERS)[1]
    reader.press("j", "j")
    reader.go(lambda: reader.press(Keys.ENTER))
    assert reader.path == f"{FEATURES}{second.removeprefix('#')}"


def test_a_feature_is_one_page_of_examples_intervals_and_random_ones(reader: Reader) -> None:
    reader.look(height=1400)
    reader.open("/demo/layer1/2963")
    assert len(reader.all("#top ol.ex > li")) == 20
    assert len(reader.all("#random ol.ex > li")) == 10
    assert len(reader.all("#intervals details")) > 3
    assert len(reader.all("#top mark.peak")) == 20
    reader.picture("browser-feature")
    reader.look(height=1400, scheme="dark")
    reader.picture("browser-feature-dark")
    reader.look(width=PHONE)
    reader.picture("browser-feature-phone")


def test_the_tabs_of_a_feature_lead_to_its_parts_by_keys(reader: Reader) -> None:
    reader.open(FEATURE)
    for key, part in (("i", "intervals"), ("x", "random"), ("t", "top")):
        reader.press(key)
        reader.wait(part, lambda part=part: reader.path.endswith(f"#{part}"))  # type: ignore[misc]
        top = reader.script("return document.getElementById(arguments[0]).getBoundingClientRect().top", part)
        assert top < 800


def test_the_window_grows_to_the_whole_sample(reader: Reader) -> None:
    reader.open(FEATURE)
    lengths = [len(reader.texts("#top .ctx")[0])]
    for address in [
        link.get_attribute("href") for link in reader.all('.opts a[title$="each side"], [title="the whole sample"]')
    ]:
        reader.open(str(address))
        lengths.append(len(reader.texts("#top .ctx")[0]))
    assert lengths == sorted(lengths)
    assert len(lengths) > 3
    assert lengths[-1] > 2 * lengths[0]


def test_white_space_is_shown_on_demand(reader: Reader) -> None:
    reader.open(f"{FEATURE}?window=all")
    before = sum(text.count("·") for text in reader.texts("#top .ctx"))
    reader.go(lambda: reader.press("m"))
    assert sum(text.count("·") for text in reader.texts("#top .ctx")) > before + 20


def test_next_previous_and_random_are_keys(reader: Reader) -> None:
    reader.open(FEATURE)
    reader.go(lambda: reader.press("j"))
    assert reader.path == "/demo/layer1/13"
    reader.go(lambda: reader.press("k"))
    assert reader.path == FEATURE
    reader.go(lambda: reader.press("r"))
    assert reader.path not in (FEATURE, "/demo/layer1/13")


def test_nothing_moves_from_one_feature_to_the_next(reader: Reader) -> None:
    places = "return [...document.querySelectorAll('aside h2, .bar, .pn a')].map((e) => [e.textContent.trim(), \
        Math.round(e.getBoundingClientRect().x), Math.round(e.getBoundingClientRect().y)].slice(1))"
    seen = []
    for number in (201, 2963, 2683):
        reader.open(f"{FEATURES}{number}")
        seen.append(reader.script(places))
    assert seen[0] == seen[1] == seen[2]


def test_the_question_mark_lists_every_key_of_the_page(reader: Reader) -> None:
    reader.open(FEATURE)
    named = [element.get_attribute("data-key") or "" for element in reader.all("[data-key]")]
    keys = {{"ArrowLeft": "←", "ArrowRight": "→"}.get(key, key) for keys in named for key in keys.split()}
    reader.press("?")
    assert keys <= set(reader.texts("#keys kbd"))
    assert all(reader.texts("#keys dd"))
    reader.picture("browser-keys")
    reader.press(Keys.ESCAPE)
    assert not reader.all("dialog[open]")


def test_an_example_leads_to_its_sample_and_that_to_its_document(reader: Reader) -> None:
    reader.open(FEATURE)
    reader.click("#top a.val")
    assert reader.path.endswith("?feature=12")
    assert reader.all(".ctx.text .t")
    reader.go(lambda: reader.press("a"))
    assert len(reader.all("table.stored tbody tr")) > 3
    reader.picture("browser-sample")
    reader.go(lambda: reader.press("d"))
    assert "/documents?id=" in reader.path
    assert reader.all("ol.ex > li")
    reader.click("ol.ex a.val")
    assert "/samples/" in reader.path


def test_a_token_of_a_sample_leads_to_the_features_that_fire_on_it(reader: Reader) -> None:
    reader.open(FEATURE)
    reader.click("#top a.val")
    token = reader.all(".ctx.text a.t")[0]
    place = str(token.get_attribute("href")).split("#")[1]
    token.click()
    assert reader.all(f"tr#{place} a.firing")


def test_two_features_are_compared_side_by_side(reader: Reader) -> None:
    reader.open(FEATURE)
    reader.go(lambda: reader.press("c"))
    field = reader.fill("[name=b]", "demo/layer1/13")
    reader.go(lambda: field.send_keys(Keys.ENTER))
    assert len(reader.all(".sides > section")) == 2
    assert "samples" in reader.texts(".common dt")
    reader.picture("browser-compare")


def test_a_label_is_saved_found_exported_removed_and_imported(reader: Reader, tmp_path: Path, demo_home: Path) -> None:
    reader.open(FEATURE)
    reader.press("l")
    reader.fill("[name=label]", "calls of pop")
    reader.all("[name=mark] option")[1].click()
    reader.fill("[name=note]", "two lines\nof a note")
    reader.click(".edit form button")
    assert reader.texts("h1 .label") == ["calls of pop"]
    exported = labels("export", demo_home)
    reader.open("/labels/demo")
    assert "calls of pop" in reader.texts("td")
    reader.open(f"{FEATURES}?q=calls+of+pop")
    assert reader.texts(NUMBERS) == ["#12"]
    reader.open(FEATURE)
    reader.press("l")
    for name in ("label", "note"):
        reader.fill(f"[name={name}]", "")
    reader.all("[name=mark] option")[0].click()
    reader.click(".edit form button")
    assert reader.texts("h1 .label") == []
    file = tmp_path / "labels.jsonl"
    file.write_text(exported)
    reader.open("/labels/demo")
    reader.all("[type=file]")[0].send_keys(str(file))
    reader.click(".import button")
    assert "1 added" in " ".join(reader.texts("[role=status]"))
    assert labels("export", demo_home) == exported


def labels(action: str, home: Path) -> str:
    command = [PROGRAM, "labels", action, "demo"]
    return subprocess.run(
        command, check=True, env=environment_of(home), cwd=home, capture_output=True, text=True, timeout=60
    ).stdout


def test_a_form_without_the_token_of_the_page_changes_nothing(reader: Reader) -> None:
    reader.open("/demo/layer1/40")
    reader.press("l")
    reader.script("document.querySelector('[name=csrf]').value = 'guessed'")
    reader.fill("[name=label]", "not to be kept")
    reader.click(".edit form button")
    assert "Nothing was changed" in reader.browser.text
    assert [error for error in reader.errors() if "403" not in error] == []
    assert reader.json("/demo/layer1/40.json")["feature"]["label"]["label"] is None


def test_every_view_has_its_json_and_its_sql(reader: Reader, demo_home: Path) -> None:
    reader.open(f"{FEATURES}?sort=mean")
    first = int(reader.texts(NUMBERS)[0].removeprefix("#"))
    twin = next(link.get_attribute("href") for link in reader.all("a") if link.text == "JSON")
    assert reader.json(str(twin))["features"][0]["neuron_index"] == first
    next(link for link in reader.all("a") if link.text == "SQL").click()
    assert all("SELECT" in text for text in reader.texts("pre.sql"))
    assert reader.texts("pre.sql")
    reader.picture("browser-sql")


def test_a_page_that_is_not_there_says_so(reader: Reader) -> None:
    reader.open(f"{FEATURES}99999")
    assert "Not found" in reader.browser.text
    assert all("404" in error for error in reader.errors())


PAGES = ("/", FEATURES, f"{FEATURES}?q=self", FEATURE, f"{FEATURE}?window=all", "/labels/demo")


@pytest.mark.parametrize("width", [PHONE, 768, DESK])
def test_no_page_scrolls_sideways(reader: Reader, width: int) -> None:
    reader.open(FEATURE)
    sample = str(reader.all("#top a.val")[0].get_attribute("href"))
    document = str(reader.all("#top a.doc")[0].get_attribute("href"))
    reader.look(width=width)
    wide = {}
    for page in (*PAGES, sample, document, "/compare?a=demo/layer1/12&b=demo/layer1/13"):
        reader.open(page)
        wide[page] = reader.sideways()
    assert set(wide.values()) == {0}, wide


def test_a_list_at_its_usual_width_shows_all_its_columns(reader: Reader) -> None:
    reader.open(FEATURES)
    hidden = "const box = document.querySelector('.wide'); return box.scrollWidth - box.clientWidth"
    assert reader.script(hidden) == 0


@pytest.fixture(scope="module")
def other_server(demo_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with ``--read-only --live``."""
    with browsing(demo_home, tmp_path_factory.mktemp("other"), "--read-only", "--live", "demo") as address:
        yield address


@pytest.fixture
def guest(shared_browser: Browser, other_server: str) -> Iterator[Reader]:
    reader = Reader(shared_browser, other_server)
    yield reader
    assert reader.errors() == []


def test_a_read_only_browser_has_no_forms_that_write(guest: Reader) -> None:
    for page in (FEATURE, "/labels/demo"):
        guest.open(page)
        assert guest.all("form[method=post]") == []
    send = "const done = arguments[0]; fetch('/demo/layer1/12/label', {method: 'POST'}).then((it) => done(it.status))"
    assert guest.driver.execute_async_script(send) == 403
    assert all("403" in error for error in guest.errors())


def test_a_sentence_shows_its_features_token_by_token(guest: Reader) -> None:
    guest.driver.set_script_timeout(60)
    guest.open(FEATURES)
    guest.follow("Try a sentence")
    guest.fill("#text", "def pop(self):\nreturn self.items.pop()")
    guest.click(".try button")
    assert len(guest.all(".by-token tr")) > 5
    assert guest.all("table.strongest a.num")
    guest.picture("browser-try")


def test_a_report_in_one_file_opens_without_a_server(shared_browser: Browser, demo_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    command = [PROGRAM, "report", "demo", "--features", "12,201,2963", "--out", str(file)]
    subprocess.run(command, check=True, env=environment_of(demo_home), cwd=tmp_path, timeout=120)
    reader = Reader(shared_browser, file.as_uri())
    reader.open(file.as_uri())
    assert [article.get_attribute("id") for article in reader.all("article")] == [
        "feature-12",
        "feature-201",
        "feature-2963",
    ]
    reader.all("table a.num")[1].click()
    assert reader.path.endswith("#feature-201")
    assert reader.script("return performance.getEntriesByType('resource').map((one) => one.name)") == []
    outside = [link.get_attribute("href") for link in reader.all("[href], [src]")]
    assert all(str(address).startswith(file.as_uri()) for address in outside)
    assert reader.errors() == []
    assert reader.sideways() == 0
