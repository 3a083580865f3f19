"""Labels in the browser: written by plain forms with the token of the page, listed, exported and imported."""

import re
from typing import TYPE_CHECKING, Any

import pytest

from extraction_assets_tests.browser.conftest import BASE, make_client
from extraction_assets_tests.project import Project

if TYPE_CHECKING:
    from httpx import Response
    from starlette.testclient import TestClient

FEATURE = "/tiny/relu/3"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[2J"
LINE = b'{"sae": "relu", "neuron_index": 4, "label": "from a file", "updated_at": "2026-01-02T03:04:05+00:00"}\n'


def token(client: "TestClient", address: str = FEATURE) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(address).text)
    assert found
    return found[1]


def save(client: "TestClient", **fields: str) -> "Response":
    form = {"csrf": token(client), "label": "pop() calls", "mark": "", "note": "", **fields}
    return client.post(f"{FEATURE}/label", data=form, headers={"origin": BASE})


def send_file(client: "TestClient", content: bytes, **fields: str) -> "Response":
    form = {"csrf": token(client, "/labels/tiny"), **fields}
    return client.post("/labels/tiny/import", data=form, files={"file": ("labels.jsonl", content)})


def listed(client: "TestClient") -> list[dict[str, Any]]:
    return [one["label"] for one in client.get("/labels/tiny.json").json()["labels"]]


def test_a_label_of_the_form_stands_on_the_feature_and_in_the_list(client: "TestClient") -> None:
    answer = save(client, mark="dead end", note="a\r\nb")
    assert answer.url == f"{BASE}{FEATURE}"
    assert '<span class="label">pop() calls</span>' in answer.text
    (label,) = listed(client)
    assert (label["sae"], label["neuron_index"], label["mark"], label["note"]) == ("relu", 3, "dead end", "a\nb")


def test_an_empty_form_removes_a_label(client: "TestClient") -> None:
    save(client)
    save(client, label="")
    assert listed(client) == []


def test_without_the_token_of_a_page_nothing_is_written(client: "TestClient") -> None:
    assert save(client, csrf="guessed").status_code == 403
    assert listed(client) == []


def test_a_form_of_another_site_writes_nothing(client: "TestClient") -> None:
    form = {"csrf": token(client), "label": "x"}
    answer = client.post(f"{FEATURE}/label", data=form, headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
    assert listed(client) == []


def test_a_read_only_browser_refuses_and_shows_no_form(project: Project) -> None:
    with make_client(project.url, read_only=True) as client:
        for address in (FEATURE, "/labels/tiny"):
            assert 'method="post"' not in client.get(address).text
        assert client.post(f"{FEATURE}/label", data={"label": "x"}).status_code == 403
        assert client.post("/labels/tiny/import", files={"file": ("f", LINE)}).status_code == 403


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"mark": "nice"}, "mark=nice is not one of"),
        ({"label": "x" * 201}, "the label has 201 characters, and at most 200 are stored"),
        ({"note": "x" * 10_001}, "the note has 10,001 characters, and at most 10,000 are stored"),
        ({"label": "a\0b"}, "holds a character that no text in the database holds"),
    ],
)
def test_a_label_that_cannot_be_stored_is_one_sentence(
    client: "TestClient", fields: dict[str, str], sentence: str
) -> None:
    answer = save(client, **fields)
    assert answer.status_code == 400
    assert sentence in answer.text


def test_a_feature_that_there_is_not_takes_no_label(client: "TestClient") -> None:
    answer = client.post("/tiny/relu/48/label", data={"csrf": token(client), "label": "x"})
    assert answer.status_code == 400
    assert "no feature 48 in tiny/relu: features are numbered from 0 to 47" in answer.text


def test_a_hostile_label_is_only_text(client: "TestClient") -> None:
    save(client, label=HOSTILE, note=HOSTILE)
    for address in (FEATURE, "/labels/tiny", "/tiny/relu/"):
        page = client.get(address).text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "\u202e" not in page
        assert "\x1b" not in page


def test_what_is_exported_and_imported_again_is_the_same(client: "TestClient") -> None:
    save(client, mark="interesting", note="ünïcödé\n😀")
    exported = client.get("/labels/tiny.jsonl")
    assert exported.headers["content-disposition"].startswith("attachment")
    before = listed(client)
    save(client, label="")
    assert "1 added" in send_file(client, exported.content).text
    assert listed(client) == before
    assert client.get("/labels/tiny.jsonl").content == exported.content


def test_a_file_is_added_to_what_is_there(client: "TestClient") -> None:
    save(client)
    answer = send_file(client, LINE)
    assert "Imported: 1 added, 0 replaced older ones, 0 older than those here, 0 unchanged" in answer.text
    assert [one["neuron_index"] for one in listed(client)] == [3, 4]


def test_labels_of_an_sae_of_which_nothing_is_merged_are_said(client: "TestClient") -> None:
    answer = send_file(client, LINE.replace(b"relu", b"later"))
    assert "Imported: 1 added" in answer.text
    assert "Nothing is merged yet of later: pages show those labels after that." in answer.text


def test_a_file_for_an_extraction_that_there_is_not_is_refused(client: "TestClient") -> None:
    form = {"csrf": token(client, "/labels/tiny")}
    answer = client.post("/labels/tyni/import", data=form, files={"file": ("labels.jsonl", LINE)})
    assert answer.status_code == 404
    assert "no merged results and no labels of extraction &#39;tyni&#39;" in answer.text
    assert client.get("/labels/tyni.jsonl").status_code == 404


def test_bad_lines_of_a_file_are_named_and_nothing_is_imported(client: "TestClient") -> None:
    answer = send_file(client, LINE + b"{\n\xff\n")
    assert answer.status_code == 400
    assert "nothing was imported: line 2: it is not JSON" in answer.text
    assert "line 3: byte 1 is not UTF-8" in answer.text
    assert listed(client) == []


def test_a_file_without_the_token_is_not_imported(client: "TestClient") -> None:
    assert send_file(client, LINE, csrf="guessed").status_code == 403
    assert listed(client) == []


def test_no_file_is_one_sentence(client: "TestClient") -> None:
    assert "no file was chosen" in send_file(client, b"").text


def test_an_extraction_that_there_is_not_has_no_labels(client: "TestClient") -> None:
    answer = client.get("/labels/none")
    assert answer.status_code == 404
    assert "no merged results and no labels of extraction &#39;none&#39;" in answer.text


@pytest.mark.parametrize("query", ["added=0", "kept=3"])
def test_an_address_with_a_part_of_what_an_import_did_is_a_page(client: "TestClient", query: str) -> None:
    answer = client.get(f"/labels/tiny?{query}")
    assert answer.status_code == 200
    assert "0 replaced older ones" in answer.text


def test_a_name_that_no_database_holds_takes_no_label(client: "TestClient") -> None:
    answer = client.post("/tiny/re%00lu/3/label", data={"csrf": token(client), "label": "x"})
    assert answer.status_code == 404
