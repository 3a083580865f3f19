"""Forms as browsers send them: plain fields, and a file where a form has one."""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from extraction_assets.browser.parameters import BadRequestError, Parameters

_PLAIN, _WITH_FILE = "application/x-www-form-urlencoded", "multipart/form-data"
_MOST_FIELDS = 100
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s";,]{1,70}))')
_NAME = re.compile(rb'(?:^|;)\s*name="([^"]*)"')
_IS_FILE = re.compile(rb"(?:^|;)\s*filename\*?=")


class Form(NamedTuple):
    """A form that was sent."""

    fields: Parameters
    files: Mapping[str, bytes]
    """Contents by the name of the field."""


def parse_form(body: bytes, content_type: str) -> Form:
    """The fields and files of a form. Raises BadRequestError if it is not one."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _PLAIN:
        return Form(Parameters(_plain(body)), {})
    boundary = _BOUNDARY.search(content_type)
    if kind != _WITH_FILE or boundary is None:
        raise BadRequestError(f"a form is sent as {_PLAIN}, or as {_WITH_FILE} with its boundary")
    return _with_files(body, (boundary[1] or boundary[2]).encode("latin-1", "replace"))


def _plain(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise BadRequestError(f"the form is not UTF-8 text of at most {_MOST_FIELDS} fields") from error


def _with_files(body: bytes, boundary: bytes) -> Form:
    """Parts stand between lines of the boundary, each with headers, an empty line and its content (RFC 7578)."""
    before, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if before or len(parts) < 2 or len(parts) > _MOST_FIELDS or not parts[-1].startswith(b"--"):
        raise BadRequestError("the form was cut or is not as its boundary says: send it again")
    fields, files = list[tuple[str, str]](), dict[str, bytes]()
    for part in parts[:-1]:
        head, found, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = next((line for line in head.split(b"\r\n") if line.lower().startswith(b"content-disp")), b"")
        name = _NAME.search(disposition)
        if not found or name is None:
            raise BadRequestError("a part of the form has no name: send it again")
        try:
            if _IS_FILE.search(disposition):
                files[name[1].decode()] = content
            else:
                fields.append((name[1].decode(), content.decode()))
        except UnicodeDecodeError as error:
            raise BadRequestError("a field of the form is not UTF-8 text") from error
    return Form(Parameters(fields), files)
