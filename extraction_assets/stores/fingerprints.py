"""Fingerprints: a short hash of everything that an artifact's bytes depend on, and of nothing else.

Every kind has a version of its own, which is a part of its fingerprints alone. Raise it where the same inputs give
content of another meaning: then what is stored of this kind is stale, and so is what is made from it. A file that says
the same in another form needs no new version but a new form (``chunk_store.FORMS``), and a statistic that is added
needs neither: files without it are read.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from extraction_assets.catalog import ASSETS, FIRST_VERSION

VERSIONS: dict[str, int] = {
    **{row.name: row.version for row in ASSETS},
    # What they are made from.
    "documents": FIRST_VERSION,
    "files": FIRST_VERSION,
    "hook_output": FIRST_VERSION,
    "hub_dataset": FIRST_VERSION,
    "model": FIRST_VERSION,
    "outputs": FIRST_VERSION,
    "sae": FIRST_VERSION,
    "source_files": FIRST_VERSION,
    "tokenizer": FIRST_VERSION,
}
"""Kind -> its version."""

LENGTH = 24
"""Hex digits of a fingerprint: 96 bits."""


def fingerprint(kind: str, **parts: Any) -> str:
    """Hash of JSON-like values under a kind of ``VERSIONS``."""
    text = json.dumps({"kind": kind, "format": VERSIONS[kind], **parts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def raised_versions(*kinds: str) -> dict[str, Any]:
    """``{"versions": {kind: version}}`` of the kinds whose version is not the first, as a part of a fingerprint of what
    is made from them; empty where none is, so that what was known before stays known."""
    raised = {kind: VERSIONS[kind] for kind in kinds if VERSIONS[kind] != FIRST_VERSION}
    return {"versions": raised} if raised else {}


def bytes_fingerprint(*parts: bytes | memoryview) -> str:
    """Hash of byte strings, their lengths included."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:LENGTH]


def files_fingerprint(files: Iterable[Path]) -> str:
    """Hash of files by name and content. Contents are read once a process while size and time stamp stay."""
    return fingerprint("files", files=[(path.name, _content_hash(*_identity(path))) for path in files])


def _identity(path: Path) -> tuple[Path, int, int]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, or no file")
    path = path.resolve()
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4096)
def _content_hash(path: Path, _size: int, _modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
