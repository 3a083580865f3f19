"""Which file a command may write, and how the others are refused."""

from pathlib import Path

import click
import pytest

from extraction_assets.cli.out_file import OutFile


def path_of(given: str) -> Path:
    return OutFile().convert(given, None, None)


def test_a_path_is_full_whatever_folders_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_of("new/deep/report.html") == tmp_path / "new/deep/report.html"


def test_the_home_of_this_user_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/report.html") == tmp_path / "report.html"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("s3://bucket/file", "is a URL"),
        ("file:///tmp/x", "is a URL"),
        ("~no-such-user/out", "a user who is not known"),
        ("there/below/x", "there is a file, and nothing can be written below it"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    with pytest.raises(click.BadParameter, match=sentence):
        path_of(given)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="is a folder: give the path of a file"):
        path_of(str(tmp_path))
