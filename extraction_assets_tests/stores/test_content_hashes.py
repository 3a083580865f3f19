"""Contents of files are hashed once a process, and again whenever they may have changed; large ones once a machine."""

import errno
import hashlib
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from io import BufferedReader
from pathlib import Path

import pytest

from extraction_assets.stores import content_hashes


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
    time.sleep(2 * content_hashes.SETTLED_NS / 1e9)
    return path


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return content_hashes.content_hash(file)


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
    monkeypatch.setattr(content_hashes, "SETTLED_NS", 3600 * 10**9)
    assert _hash(settled) == _hash(settled)
    assert reads == [b"before", b"before"]


@pytest.fixture
def large(settled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that is remembered from one process to the next."""
    monkeypatch.setattr(content_hashes, "LARGE_BYTES", 1)
    monkeypatch.setenv("EXTRACTION_HOME", str(tmp_path / "home"))
    new_process(monkeypatch)
    return settled


def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_hashes, "_hashes", content_hashes.Memo(4096))
    monkeypatch.setattr(content_hashes, "_on_trust", {})
    monkeypatch.setattr(content_hashes, "_written", set())


def test_a_large_file_is_read_by_one_process_of_a_machine(
    large: Path, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = content_hashes.file_content_hash(large, on_trust=True)
    new_process(monkeypatch)
    assert content_hashes.file_content_hash(large, on_trust=True) == found == hashlib.sha256(b"before").hexdigest()
    assert reads == [b"before"]


def test_what_was_taken_on_trust_is_read_before_it_counts(
    large: Path, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    content_hashes.file_content_hash(large, on_trust=True)
    new_process(monkeypatch)
    content_hashes.file_content_hash(large, on_trust=True)
    content_hashes.read_files_on_trust()
    content_hashes.read_files_on_trust()
    assert reads == [b"before", b"before"]


def test_a_file_that_cannot_be_read_now_is_read_by_the_next_run(
    large: Path, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    content_hashes.file_content_hash(large, on_trust=True)
    new_process(monkeypatch)
    content_hashes.file_content_hash(large, on_trust=True)
    with monkeypatch.context() as failing, pytest.raises(OSError, match="Input/output error"):
        failing.setattr(content_hashes.hashlib, "file_digest", _fail)
        content_hashes.read_files_on_trust()
    content_hashes.read_files_on_trust()
    assert reads == [b"before", b"before"]


def _fail(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_bytes_that_changed_without_a_trace_are_refused_and_read_by_the_next(
    large: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content_hashes.file_content_hash(large, on_trust=True)
    new_process(monkeypatch)
    memory = tmp_path / "home" / content_hashes.REMEMBERED
    content_hashes._remember(memory, dict.fromkeys(content_hashes._remembered(memory), "0" * 64))  # of other bytes
    assert content_hashes.file_content_hash(large, on_trust=True) == "0" * 64
    with pytest.raises(content_hashes.ChangedFileError, match="its disk may be failing"):
        content_hashes.read_files_on_trust()
    assert content_hashes.file_content_hash(large, on_trust=True) == hashlib.sha256(b"before").hexdigest()
    new_process(monkeypatch)
    assert content_hashes.file_content_hash(large, on_trust=True) == hashlib.sha256(b"before").hexdigest()


def test_a_hash_that_is_being_forgotten_does_not_come_back_by_another_thread(
    large: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content_hashes.file_content_hash(large, on_trust=True)
    new_process(monkeypatch)
    memory = tmp_path / "home" / content_hashes.REMEMBERED
    remember = content_hashes._remember
    remember(memory, dict.fromkeys(content_hashes._remembered(memory), "0" * 64))  # of other bytes
    content_hashes.file_content_hash(large, on_trust=True)
    with ThreadPoolExecutor(1) as other:
        asked = list[Future[str]]()

        def _remember(path: Path, found: dict[str, str]) -> None:
            if not asked:  # while this thread forgets
                asked.append(other.submit(content_hashes.file_content_hash, large, on_trust=True))
                wait(asked, timeout=0.2)
            remember(path, found)

        monkeypatch.setattr(content_hashes, "_remember", _remember)
        with pytest.raises(content_hashes.ChangedFileError, match="its disk may be failing"):
            content_hashes.read_files_on_trust()
        right = hashlib.sha256(b"before").hexdigest()
        assert asked[0].result() == content_hashes.file_content_hash(large, on_trust=True) == right
    content_hashes.read_files_on_trust()


def test_a_file_that_is_replaced_meanwhile_is_refused(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content_hashes.file_content_hash(large, on_trust=True)
    new_process(monkeypatch)
    content_hashes.file_content_hash(large, on_trust=True)
    large.write_bytes(b"others")
    with pytest.raises(content_hashes.ChangedFileError, match="while a run was using it"):
        content_hashes.read_files_on_trust()


@pytest.mark.parametrize("times", ["kept", "new"])
def test_a_large_file_that_was_written_to_is_read(large: Path, monkeypatch: pytest.MonkeyPatch, times: str) -> None:
    content_hashes.file_content_hash(large, on_trust=True)
    before = large.stat()
    large.write_bytes(b"behind")
    if times == "kept":
        os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    new_process(monkeypatch)
    assert content_hashes.file_content_hash(large, on_trust=True) == hashlib.sha256(b"behind").hexdigest()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"checksum": "sha256:00", "1:2:3:4:5": "0"}', b"\xff"])
def test_what_is_remembered_may_be_damaged_or_missing(
    large: Path, reads: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    found = content_hashes.file_content_hash(large, on_trust=True)
    (tmp_path / "home" / content_hashes.REMEMBERED).write_bytes(content)
    new_process(monkeypatch)
    assert content_hashes.file_content_hash(large, on_trust=True) == found
    assert reads == [b"before", b"before"]


def test_a_home_that_cannot_be_written_only_costs_time(large: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"a file")
    assert content_hashes.file_content_hash(large, on_trust=True) == hashlib.sha256(b"before").hexdigest()


def test_what_is_remembered_starts_anew_where_it_is_much(
    large: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content_hashes.file_content_hash(large, on_trust=True)
    monkeypatch.setattr(content_hashes, "_MOST_REMEMBERED", 1)
    other = large.with_name("other")
    other.write_bytes(b"other")
    time.sleep(2 * content_hashes.SETTLED_NS / 1e9)
    content_hashes.file_content_hash(other, on_trust=True)
    assert list(content_hashes._remembered(tmp_path / "home" / content_hashes.REMEMBERED).values()) == [
        hashlib.sha256(b"other").hexdigest()
    ]


def test_a_process_that_has_read_a_file_remembers_it_in_every_home(
    large: Path, reads: list[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content_hashes.file_content_hash(large, on_trust=True)
    monkeypatch.setenv("EXTRACTION_HOME", str(tmp_path / "other"))
    content_hashes.file_content_hash(large, on_trust=True)
    new_process(monkeypatch)
    content_hashes.file_content_hash(large, on_trust=True)
    assert reads == [b"before"]
