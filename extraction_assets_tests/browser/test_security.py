"""Requests of other sites are refused, and no page runs or takes anything that is not a file of the browser."""

from typing import TYPE_CHECKING

import pytest
from starlette.datastructures import Headers

from extraction_assets.browser.security import ForbiddenError, Token, host_name, is_allowed_host

if TYPE_CHECKING:
    from starlette.testclient import TestClient

HOSTILE = ("evil.example", "evil.example:3080", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "a:b:c")
"""Host headers that a rebound DNS name sends, and some that no browser does."""


@pytest.mark.parametrize("header", HOSTILE)
def test_a_host_that_is_not_this_server_is_refused(header: str) -> None:
    assert not is_allowed_host(header, ())


@pytest.mark.parametrize("header", ["localhost", "LOCALHOST:3080", "127.0.0.1:80", "[::1]", "[::1]:3080", "10.0.0.7"])
def test_localhost_and_addresses_in_digits_are_this_server(header: str) -> None:
    assert is_allowed_host(header, ())


@pytest.mark.parametrize("header", ["localhost:0", "localhost:65536", "localhost:x", "localhost:", "local host", "a/b"])
def test_a_host_that_is_none_is_refused(header: str) -> None:
    assert host_name(header) is None


def test_a_name_may_be_added() -> None:
    assert is_allowed_host("Node7.example:8000", ["node7.example"])


def test_a_page_for_another_host_is_refused_in_one_sentence(client: "TestClient") -> None:
    answer = client.get("/", headers={"host": "evil.example:3080"})
    assert answer.status_code == 400
    assert answer.text == "This server does not go by the name in the Host header; --allow-host NAME adds a name.\n"


@pytest.mark.parametrize("address", ["/", "/.json", "/nothing", "/static/style.css", "/static/nothing", "/?x=1"])
def test_every_answer_has_the_policy(client: "TestClient", address: str) -> None:
    headers = client.get(address).headers
    policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"


def test_no_page_has_a_script_or_a_style_of_its_own(client: "TestClient") -> None:
    for address in ("/", "/tiny/relu/", "/nothing"):
        html = client.get(address).text
        assert "<style" not in html
        assert " style=" not in html
        assert html.count("<script") == html.count("<script src=")


SENT_HERE = {"host": "localhost:3080", "origin": "http://localhost:3080", "sec-fetch-site": "same-origin"}


def test_a_form_of_this_server_passes() -> None:
    token = Token()
    token.check(Headers(SENT_HERE), token.value)


@pytest.mark.parametrize("sent", [None, "", "x"])
def test_a_form_without_the_token_is_refused(sent: str | None) -> None:
    with pytest.raises(ForbiddenError, match="reload it"):
        Token().check(Headers(SENT_HERE), sent)


@pytest.mark.parametrize(
    "header", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_a_form_of_another_site_is_refused_with_the_token_too(header: dict[str, str]) -> None:
    token = Token()
    with pytest.raises(ForbiddenError, match="another site"):
        token.check(Headers({**SENT_HERE, **header}), token.value)
