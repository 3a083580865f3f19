"""Contents of files are hashed once a process, and again whenever they may have changed."""

import hashlib
import os
import time
from io import BufferedReader
from pathlib import Path

import pytest

from extraction_assets.stores import fingerprints


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents that were read to be hashed."""
    found: list[bytes] = []
    digest = hashlib.file_digest

    def noted(file: BufferedReader, kind: str) -> object:
        found.append(file.peek())
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return found


@pytest.fixture
def settled(tmp_path: Path) -> Path:
    """A file that was not changed for a while."""
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"before")
    time.sleep(2 * fingerprints.SETTLED_NS / 1e9)
    return path


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return fingerprints.content_hash(file)


def test_a_file_that_stays_is_read_once_wherever_it_lies(settled: Path, reads: list[bytes]) -> None:
    found = _hash(settled)
    moved = settled.parent.rename(settled.parent.with_name("other")) / settled.name
    assert found == _hash(moved) == hashlib.sha256(b"before").hexdigest()
    assert reads == [b"before"]


def test_other_bytes_under_the_old_time_are_read(settled: Path, reads: list[bytes]) -> None:
    _hash(settled)
    times = settled.stat()
    with settled.open("r+b") as file:  # the same inode and size
        file.write(b"behind")
    os.utime(settled, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _hash(settled) == hashlib.sha256(b"behind").hexdigest()
    assert reads == [b"before", b"behind"]


def test_a_file_that_has_just_changed_is_read_again(
    settled: Path, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "SETTLED_NS", 3600 * 10**9)
    assert _hash(settled) == _hash(settled)
    assert reads == [b"before", b"before"]
