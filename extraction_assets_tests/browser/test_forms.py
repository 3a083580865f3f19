"""Forms as browsers send them, and bodies that are none."""

import pytest

pytest.importorskip("starlette")

from extraction_assets.browser.forms import parse_form
from extraction_assets.browser.parameters import BadRequestError

TYPE = "multipart/form-data; boundary=xyz"
BODY = (
    b'--xyz\r\nContent-Disposition: form-data; name="note"\r\n\r\na\r\nb\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a \\"b\\".jsonl"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n\xff\r\n--xy\r\n\r\n"
    b"\r\n--xyz--\r\n"
)


def test_a_plain_form_has_its_fields() -> None:
    form = parse_form(b"a=1&b=%C3%A9+x", "application/x-www-form-urlencoded; charset=utf-8")
    assert (form.fields.text("a"), form.fields.text("b"), form.files) == ("1", "é x", {})


def test_a_form_with_a_file_has_both_to_the_byte() -> None:
    form = parse_form(BODY, TYPE)
    assert form.fields.text("note") == "a\r\nb"
    assert form.files == {"file": b"\xff\r\n--xy\r\n\r\n"}


def test_a_boundary_may_stand_in_quotes() -> None:
    assert parse_form(BODY, 'multipart/form-data; boundary="xyz"').files == parse_form(BODY, TYPE).files


@pytest.mark.parametrize(
    ("body", "content_type", "sentence"),
    [
        (b"a=1", "", "a form is sent as"),
        (b"{}", "application/json", "a form is sent as"),
        (BODY, "multipart/form-data", "a form is sent as"),
        (BODY[:-10], TYPE, "the form was cut"),
        (b"", TYPE, "the form was cut"),
        (b"junk" + BODY, TYPE, "the form was cut"),
        (b"--xyz\r\n\r\nx\r\n--xyz--", TYPE, "a part of the form has no name"),
        (b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--xyz--', TYPE, "is not UTF-8 text"),
        (b"a=%FF", "application/x-www-form-urlencoded", "is not UTF-8 text of at most 100 fields"),
        (b"&".join(b"a=1" for _ in range(101)), "application/x-www-form-urlencoded", "of at most 100 fields"),
    ],
)
def test_a_body_that_is_no_form_is_one_sentence(body: bytes, content_type: str, sentence: str) -> None:
    with pytest.raises(BadRequestError, match=sentence):
        parse_form(body, content_type)
