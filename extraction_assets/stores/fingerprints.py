"""Fingerprints: a short hash of everything that an artifact's bytes depend on, and of nothing else."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

FORMAT_VERSION = 2
"""Part of every fingerprint: raised whenever the meaning or the form of stored bytes changes."""

LENGTH = 24
"""Hex digits of a fingerprint: 96 bits."""


def fingerprint(kind: str, **parts: Any) -> str:
    """Hash of JSON-like values under a kind ("top_k_table", …)."""
    text = json.dumps({"kind": kind, "format": FORMAT_VERSION, **parts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


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
