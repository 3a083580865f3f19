"""A chunk store in a folder of this machine."""

from pathlib import Path

import pytest

from extraction_assets.stores.local_files import LocalFiles
from extraction_assets_tests.stores.build import HOSTILE


@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "links in a circle", "a link to a folder", "a device"])
def test_names_say_which_are_files(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a file").touch()
    (folder / "a link").symlink_to("a file")
    (folder / "a link to nothing").symlink_to("nothing")
    HOSTILE[kind](folder / "irregular")
    names = LocalFiles(tmp_path).names(folder)
    assert {name for name, is_file in names.items() if is_file} == {"a file", "a link"}
    assert names == {path.name: path.is_file() for path in folder.iterdir()}


def test_what_is_no_folder_has_no_names(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    files = LocalFiles(tmp_path)
    assert files.names(tmp_path / "file") == files.names(tmp_path / "absent") == {}
