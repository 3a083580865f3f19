"""Which copies of remote files stay on this machine."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from extraction_assets.stores.local_copies import LocalCopies, WantedFile

BYTES = 10


class Reader:
    """Reads files of ten bytes, and counts what is copied."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.copies, self.fetched, self._folder = LocalCopies(most_bytes), list[str](), folder

    def read(self, names: Sequence[str]) -> list[str]:
        """Reads files one after the other; what was copied."""
        self.fetched.clear()
        for name in names:
            with self.copies.reading(WantedFile(self._folder / name, "stamp", self._fetch)) as path:
                assert path.read_bytes() == name.encode() * BYTES
        return list(self.fetched)

    def room(self, most_bytes: int) -> Callable[[], int]:
        """Of a disk of so many bytes."""
        return lambda: most_bytes - sum(path.stat().st_size for path in self._folder.iterdir())

    def _fetch(self, path: Path) -> None:
        self.fetched.append(path.name)
        path.write_bytes(path.name.encode() * BYTES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "copies"


def test_what_was_read_last_stays(folder: Path) -> None:
    reader = Reader(folder, 2 * BYTES)
    assert reader.read("abcd") == [*"abcd"]
    assert {path.name for path in folder.iterdir()} == {*"cd"}
    assert reader.read("dc") == []


def test_in_several_passes_what_fits_is_copied_once(folder: Path) -> None:
    reader = Reader(folder, BYTES)
    with reader.copies.several_passes(reader.room(4 * BYTES)):
        assert reader.read("abcd") == [*"abcd"]
        assert reader.read("abcd") == []
    assert {path.name for path in folder.iterdir()} == {"d"}


def test_in_several_passes_over_more_than_fits_as_many_as_fit_are_copied_once(folder: Path) -> None:
    reader = Reader(folder, BYTES)
    with reader.copies.several_passes(reader.room(3 * BYTES)):
        assert reader.read("abcde") == [*"abcde"]
        for _ in range(3):
            assert reader.read("abcde") == [*"de"]
            assert {path.name for path in folder.iterdir()} == {*"abc"}


def test_in_several_passes_copies_make_room_for_what_others_write(folder: Path) -> None:
    reader = Reader(folder, BYTES)
    with reader.copies.several_passes(reader.room(4 * BYTES)):
        reader.read("abcd")
        (folder / "of others").write_bytes(b"x" * 2 * BYTES)
        assert reader.read("a") == []
        assert {path.name for path in folder.iterdir()} == {"b", "c", "of others"}
        (folder / "of others").unlink()
        assert reader.read("abcd") == [*"ad"]
        assert reader.read("abcd") == []


def test_in_several_passes_as_much_stays_as_ever(folder: Path) -> None:
    reader = Reader(folder, 2 * BYTES)
    with reader.copies.several_passes(lambda: -(10**9)):
        reader.read("abc")
        assert {path.name for path in folder.iterdir()} == {*"ab"}


def test_a_copy_that_is_read_is_not_removed(folder: Path) -> None:
    reader = Reader(folder, BYTES)
    with (
        reader.copies.several_passes(reader.room(0)),
        reader.copies.reading(WantedFile(folder / "a", "stamp", reader._fetch)) as path,
    ):
        reader.read("b")
        assert path.is_file()
        assert not (folder / "b").exists()
