"""A command hashes a corpus once, however often it asks whether that is current."""

import hashlib
import os
from collections import Counter
from io import BufferedReader
from pathlib import Path

import pytest

from extraction_assets.stores import content_hashes, corpus_files, fingerprints
from extraction_assets.stores.corpus_arrays import FILES
from extraction_assets_tests.command import declare, succeed
from extraction_assets_tests.tiny import make_settings


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each file was read to be hashed, by its inode; every file is taken to be settled at once."""
    found = Counter[int]()
    digest = hashlib.file_digest

    def counted(file: BufferedReader, kind: str) -> object:
        found[os.fstat(file.fileno()).st_ino] += 1
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    monkeypatch.setattr(content_hashes, "SETTLED_NS", -(10**9))
    return found


@pytest.fixture
def rows_hashed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes of rows of a corpus that were hashed."""
    found: list[bytes] = []
    work = fingerprints.bytes_fingerprint

    def noted(*parts: bytes) -> str:
        found.append(b"".join(parts))
        return work(*parts)

    monkeypatch.setattr(corpus_files, "bytes_fingerprint", noted)
    return found


def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, most in ((content_hashes, 4096), (corpus_files, 100_000)):
        monkeypatch.setattr(module, "_hashes", content_hashes.Memo(most))


@pytest.mark.slow
def test_a_corpus_is_hashed_once_a_command(
    tiny_folder: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    hashed: Counter[int],
    rows_hashed: list[bytes],
) -> None:
    module = declare(monkeypatch, make_settings(tiny_folder))
    for command in ("run tiny", "status tiny", "check tiny", "run tiny --missing", "show tiny --sae relu"):
        _new_process(monkeypatch)
        succeed(module, *command.split())
        times = [hashed[path.stat().st_ino] for name in FILES for path in home.glob(f"corpora/*/{name}")]
        assert times == [0 if command.startswith("show") else 1] * len(FILES), command
        assert len(rows_hashed) == len(set(rows_hashed)), command
        hashed.clear()
        rows_hashed.clear()
