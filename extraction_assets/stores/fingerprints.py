"""Fingerprints: a short hash of everything that an artifact's bytes depend on, and of nothing else.

Every kind of ``VERSIONS`` has a version of its own. Raise it when the same inputs give content of another meaning: then
what is stored of this kind is stale, and so is what is made from it (test_raised_versions.py lists it). A file that
says the same in another form needs no new version but a new form (``chunk_names.FORMS``), and a statistic that is added
needs neither: files without it are read.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from extraction_assets.catalog import ASSETS, FIRST_VERSION
from extraction_assets.stores.content_hashes import file_content_hash

VERSIONS: dict[str, int] = {
    **{row.name: row.version for row in ASSETS},
    "hook_output": FIRST_VERSION,  # how a model computes
    "model": FIRST_VERSION,  # how its checkpoint is read
    "sae": FIRST_VERSION,  # how an SAE's checkpoint is read, and what it computes
    "tokenizer": FIRST_VERSION,  # how text becomes tokens and masks
}
"""Kind -> its version."""

IDENTITIES = frozenset({"documents", "files", "hub_dataset", "outputs", "source_files"})
"""Kinds that say which bytes something is made from, and nothing about their meaning. They have no version: where the
same bytes are read in another way, raise the kind that is made from them (``corpus`` for a source)."""

LENGTH = 24
"""Hex digits of a fingerprint: 96 bits."""


def fingerprint(kind: str, **parts: Any) -> str:
    """Hash of JSON-like values under a kind of ``VERSIONS`` or ``IDENTITIES``. KeyError for any other."""
    version = FIRST_VERSION if kind in IDENTITIES else VERSIONS[kind]
    text = json.dumps({"kind": kind, "format": version, **parts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def raised_versions(*kinds: str) -> dict[str, Any]:
    """``{"versions": {kind: version}}`` of the kinds with a later version than the first, as a part of the fingerprints
    of what is made from them; empty if there are none, so that earlier fingerprints stay valid."""
    raised = {kind: VERSIONS[kind] for kind in kinds if VERSIONS[kind] != FIRST_VERSION}
    return {"versions": raised} if raised else {}


def fingerprint_if_more(kind: str, files: str, **options: Any) -> str:
    """Fingerprint of files under a kind of ``VERSIONS``: that of the files themselves, ``files``, as it always was,
    while there are no options and the kind has its first version."""
    return fingerprint(kind, files=files, **options) if options or raised_versions(kind) else files


def bytes_fingerprint(*parts: bytes | memoryview) -> str:
    """Hash of byte strings, their lengths included."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:LENGTH]


def files_fingerprint(files: Iterable[Path], *, on_trust: bool = False) -> str:
    """Hash of files by name and content; ``on_trust`` as ``file_content_hash``. Raises FileNotFoundError if one is not
    a file."""
    return fingerprint("files", files=[(path.name, file_content_hash(path, on_trust=on_trust)) for path in files])
