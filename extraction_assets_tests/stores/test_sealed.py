"""Sealed files: whole or absent, and every altered byte is found."""

import errno
import os
import time
from pathlib import Path

import pytest

from extraction_assets.stores import sealed
from extraction_assets.stores.sealed import (
    PLACEHOLDER,
    DamagedFileError,
    durable_path,
    verify,
    write_sealed,
    write_sealed_bytes,
)

TEXT = f"header {PLACEHOLDER} then the body of the file"


def _write(path: Path) -> None:
    path.write_text(TEXT)


def test_a_sealed_file_verifies_and_gives_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    checksum = write_sealed(path, _write)
    assert verify(path) == checksum
    assert checksum in path.read_text()


def test_the_checksum_is_that_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    import hashlib

    checksum = write_sealed(tmp_path / "file", _write)
    assert checksum == hashlib.sha256(TEXT.encode()).hexdigest()


def test_a_file_is_newer_than_what_it_has_waited_for(tmp_path: Path) -> None:
    """Features that are newer than the tables made from them are read again as a whole."""
    other = tmp_path / "other"

    def wait() -> None:
        time.sleep(0.02)
        other.touch()
        time.sleep(0.02)

    write_sealed(tmp_path / "file", _write, wait)
    assert (tmp_path / "file").stat().st_mtime_ns > other.stat().st_mtime_ns


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_sealed(path, _write)
    right = path.read_bytes()
    for at in range(len(right)):
        path.write_bytes(right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :])
        with pytest.raises(DamagedFileError, match="file is damaged"):
            verify(path)


def test_every_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_sealed(path, _write)
    right = path.read_bytes()
    for length in range(len(right)):
        path.write_bytes(right[:length])
        with pytest.raises(DamagedFileError):
            verify(path)


def test_the_seal_is_found_in_the_footer_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_sealed(path, lambda p: p.write_bytes(os.urandom(3 << 20) + PLACEHOLDER.encode()) and None)
    verify(path)


def test_a_file_without_a_place_for_the_seal_is_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no place for a checksum"):
        write_sealed(tmp_path / "file", lambda p: p.write_text("nothing") and None)
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), durable_path(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_nothing_is_visible_before_the_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "file", []
    sync = sealed.sync
    monkeypatch.setattr(sealed, "sync", lambda p: (seen.append((p.name, path.exists())), sync(p)))
    write_sealed(path, _write)
    assert seen[0][1] is False  # the temporary file, before the rename
    assert seen[1] == (tmp_path.name, True)  # the folder, after it


def test_pieces_of_memory_give_the_file_that_a_writer_of_it_gives(tmp_path: Path) -> None:
    pieces = [memoryview(TEXT.encode()), memoryview(b"and more"), memoryview(b"")]
    checksum = write_sealed_bytes(tmp_path / "pieces", pieces)
    assert checksum == write_sealed(tmp_path / "file", lambda p: p.write_bytes(b"".join(pieces)))
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "file").read_bytes()


def test_pieces_without_a_place_for_the_seal_are_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no place for a checksum"):
        write_sealed_bytes(tmp_path / "file", [memoryview(b"nothing"), memoryview(PLACEHOLDER.encode())])


def test_a_large_piece_is_written_in_several_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "_AT_ONCE", 7)
    write_sealed_bytes(tmp_path / "file", [memoryview(TEXT.encode()), memoryview(bytes(range(100)))])
    verify(tmp_path / "file")
    assert (tmp_path / "file").read_bytes().endswith(bytes(range(100)))


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/wanted'"):
        write_sealed_bytes(tmp_path / "wanted", [memoryview(TEXT.encode())])
    assert list(tmp_path.iterdir()) == []
