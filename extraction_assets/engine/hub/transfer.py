"""One file from the hub to the disk: resumed where it broke, and kept only whole.

huggingface_hub 2.4 resumes within one call alone: what a process that ended has fetched of a file of 20 GB it fetches
again (``_download_to_tmp_and_move`` gives its partial file another name each time), and it compares no content with its
SHA-256.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from extraction_assets.engine.hub.refusals import TransferError, is_transient, reason
from extraction_assets.engine.hub.session import Arrived

ATTEMPTS = 5
"""Requests that may fail one after the other before it is given up."""
FIRST_WAIT_SECONDS = 1.0
"""Wait after the first failure; twice as long after each further one."""
LONGEST_WAIT_SECONDS = 60.0
"""A server that asks for a longer wait is not waited for."""

_CHUNK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_Result = TypeVar("_Result")


class RemoteFile(NamedTuple):
    """One file of a commit, as the hub describes it."""

    name: str
    url: str
    etag: str
    """SHA-256 of a large file's content (Git LFS, Xet), else the id of its Git object."""
    size: int | None


def headers() -> dict[str, str]:
    """Headers of a request to the hub, with the user's token; the HTTP client leaves the token out where the hub
    redirects to another host."""
    from huggingface_hub.utils import build_hf_headers

    return {**build_hf_headers(library_name="extraction_assets"), "Accept-Encoding": "identity"}


def with_retries(request: Callable[[], _Result], attempts: int = ATTEMPTS) -> _Result:
    """The result of a request that is tried again where the network or the server fails in a way that may pass."""
    for failed in range(attempts - 1):
        try:
            return request()
        except Exception as error:
            if not is_transient(error):
                raise
            _wait(error, failed)
    return request()


def fetch(file: RemoteFile, target: Path, arrived: Arrived) -> None:
    """Downloads a file to ``target``. What a broken transfer left, in this process or an earlier one, is not requested
    again; a file with another size or SHA-256 than the hub states is fetched once more from its beginning.

    Raises TransferError, what the last request raised, and OSError of the disk.
    """
    partial = target.with_name(f"{target.name}.resumable.incomplete")
    arrived(_size(partial))
    for _ in range(2):
        _complete(file, partial, arrived)
        if _is_whole(file, partial):
            partial.replace(target)
            return
        _discard(partial, arrived)
    raise TransferError(f"{file.name} arrived twice with another SHA-256 than the hub states")


def _complete(file: RemoteFile, partial: Path, arrived: Arrived) -> None:
    """Appends to ``partial`` until it is as long as the hub says; gives up after ``ATTEMPTS`` requests without a
    mebibyte."""
    failed = 0
    while True:
        before, error = _size(partial), None
        try:
            ended = _append(file, partial, arrived)
        except Exception as raised:
            if not is_transient(raised):
                raise
            ended, error = False, raised
        if ended and file.size in (None, _size(partial)):
            return
        if file.size is not None and _size(partial) > file.size:
            _discard(partial, arrived)
        error = error or TransferError(f"{file.name} breaks off after {_size(partial)} of {file.size} bytes")
        failed = 1 if _size(partial) >= before + _CHUNK else failed + 1
        if failed >= ATTEMPTS:
            raise error
        _wait(error, failed - 1)


def _append(file: RemoteFile, partial: Path, arrived: Arrived) -> bool:
    """One request for what ``partial`` lacks; whether the answer came to its end."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    there = _size(partial)
    if there and there == file.size:
        return True
    sent = headers() | ({"Range": f"bytes={there}-"} if there else {})
    options: dict[str, Any] = {"headers": sent, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT, "follow_redirects": True}
    with get_session().stream("GET", file.url, **options) as response:
        if response.status_code == 416:
            _discard(partial, arrived)
            return False
        hf_raise_for_status(response)
        if there and response.status_code != 206:
            _discard(partial, arrived)  # the whole file comes
        with partial.open("ab") as out:
            for chunk in response.iter_bytes(_CHUNK):
                out.write(chunk)
                arrived(len(chunk))
    return True


def _is_whole(file: RemoteFile, partial: Path) -> bool:
    """Whether the content is what the hub states; of a small file it states only the size, which is right already."""
    if not _SHA256.fullmatch(file.etag):
        return True
    with partial.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == file.etag


def _wait(error: Exception, failed: int) -> None:
    """Before the next attempt, as long as the server asks for. Raises the error if that is too long."""
    response = getattr(error, "response", None)
    requested = "" if response is None else response.headers.get("Retry-After", "")
    seconds = float(requested) if requested.isdigit() else FIRST_WAIT_SECONDS * 2**failed
    if seconds > LONGEST_WAIT_SECONDS:
        raise TransferError(f"{reason(error)}, and it asks to wait {seconds:g} s") from error
    time.sleep(seconds)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _discard(partial: Path, arrived: Arrived) -> None:
    arrived(-_size(partial))
    partial.unlink(missing_ok=True)
