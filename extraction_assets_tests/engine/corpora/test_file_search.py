"""A folder gives each of its files once, and what cannot be read in it is named; nothing is waited for."""

import os
import socket
from pathlib import Path

import pytest

from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.corpora.file_search import matching_files
from extraction_assets_tests.engine.corpora.build import ROWS, TEXTS, documents, write_jsonl, write_parquet


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    return folder


BOTH = [("a.txt", "a"), ("sub/b.txt", "b")]


def found(source: Path | str) -> list[str]:
    files, folder = matching_files(str(source))
    return [os.path.relpath(path, folder) for path in files]


@pytest.mark.parametrize("pattern", ["", "**", "**/*", "**/*.txt", "**/**/*.txt"])
def test_two_links_in_a_circle_are_followed_once(texts: Path, pattern: str) -> None:
    (texts / "one").symlink_to(texts)
    (texts / "sub" / "two").symlink_to(texts, target_is_directory=True)
    assert found(texts / pattern) == ["a.txt", "sub/b.txt"]


@pytest.mark.parametrize("pattern", ["", "**/*.txt"])
def test_two_folders_that_lead_to_each_other_are_read_once(texts: Path, pattern: str) -> None:
    for name, other in (("left", "right"), ("right", "left")):
        (texts / name).mkdir()
        (texts / name / f"{name}.txt").write_text(name)
        (texts / name / "to").symlink_to(f"../{other}")
        (texts / name / "again").symlink_to(f"../{other}")
    assert found(texts / pattern) == ["a.txt", "left/left.txt", "right/right.txt", "sub/b.txt"]


def test_a_link_to_a_folder_around_the_corpus_is_not_followed(texts: Path) -> None:
    (texts.parent / "other.txt").write_text("other")
    (texts / "up").symlink_to("..")
    assert documents(texts) == BOTH


def test_a_link_to_a_folder_elsewhere_is_followed(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "c.txt").write_text("c")
    (texts / "linked").symlink_to(tmp_path / "more")
    assert documents(texts) == [BOTH[0], ("linked/c.txt", "c"), BOTH[1]]


@pytest.mark.parametrize("pattern", ["", "*", "**/*.txt"])
def test_a_file_with_two_names_is_one_document(texts: Path, pattern: str) -> None:
    (texts / "0-link.txt").symlink_to("a.txt")
    os.link(texts / "a.txt", texts / "hard.txt")
    assert found(texts / pattern)[:2] == (["a.txt", "sub/b.txt"] if pattern != "*" else ["a.txt"])


def test_a_folder_with_two_names_is_read_once_by_its_own(texts: Path) -> None:
    (texts / "0-first").symlink_to("sub")
    assert documents(texts) == BOTH


@pytest.mark.parametrize("kind", ["a FIFO", "a socket"])
@pytest.mark.parametrize("glob", [False, True])
def test_what_is_no_file_is_refused_by_name(
    texts: Path, kind: str, glob: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "a FIFO":
        os.mkfifo(texts / "odd.txt")
    else:
        monkeypatch.chdir(texts)  # a socket's address is at most 108 bytes long
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("odd.txt")
    with pytest.raises(CorpusError, match=rf"odd\.txt is {kind}"):
        found(texts / "**/*.txt" if glob else texts)


def test_so_is_a_source_that_is_one_itself(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for source, kind in ((tmp_path / "fifo", "a FIFO"), (Path("/dev/zero"), "a device")):
        with pytest.raises(CorpusError, match=rf"{source} is {kind}, which cannot be read again and again"):
            found(source)


@pytest.mark.parametrize("pattern", ["", "*"])
def test_a_broken_link_is_named_with_where_it_leads(texts: Path, pattern: str) -> None:
    (texts / "gone.txt").symlink_to("/nowhere/at/all.txt")
    with pytest.raises(CorpusError, match=r"gone\.txt, which leads to /nowhere/at/all\.txt does not exist"):
        found(texts / pattern)


def test_a_link_to_itself_is_named(texts: Path) -> None:
    (texts / "self").symlink_to("self")
    with pytest.raises(CorpusError, match=r"texts/self cannot be read \(Too many levels of symbolic links\)"):
        found(texts)


def test_a_folder_that_may_not_be_read_is_named(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: str) -> object:
        if path.endswith("sub"):  # as the system answers who is not root
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(CorpusError, match=r"corpus folder .*sub cannot be read \(Permission denied\)"):
        found(texts)


def test_names_that_begin_with_a_dot_are_left_out(texts: Path) -> None:
    (texts / ".git").mkdir()
    (texts / ".git" / "config.txt").write_text("x")
    (texts / ".DS_Store").write_bytes(b"\xff")
    (texts / ".#a.txt").symlink_to("nobody@nowhere")
    assert documents(texts) == BOTH
    assert found(texts / "**/*") == ["a.txt", "sub/b.txt"]


def test_a_file_whose_name_has_wildcards_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("a")
    assert documents(tmp_path / "a[1].txt") == [("a[1].txt", "a")]


def test_a_name_that_is_not_utf8_becomes_an_id_that_is(tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.txt"), "wb") as file:
        file.write(b"text")
    assert documents(tmp_path) == [("caf\\xe9.txt", "text")]


@pytest.mark.parametrize("name", [b"caf\xe9.jsonl", b"caf\xe9.jsonl.gz", b"caf\xe9.parquet"])
def test_files_of_many_documents_may_have_such_a_name_too(tmp_path: Path, name: bytes) -> None:
    write = write_parquet if name.endswith(b"parquet") else write_jsonl
    made = write(tmp_path / name.decode("latin-1"), ROWS)
    os.rename(os.fsencode(made), os.path.join(os.fsencode(tmp_path), name))
    (first, text), *_ = documents(tmp_path)
    assert first.startswith("caf\\xe9.")
    assert text == TEXTS[0]


def test_an_error_about_such_a_name_can_be_printed(tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.txt"), "wb") as file:
        file.write(b"\xff")
    with pytest.raises(CorpusError, match=r"caf\\udce9\.txt is not UTF-8 text") as caught:
        documents(tmp_path)
    str(caught.value).encode()


def test_a_glob_keeps_to_its_folders(texts: Path) -> None:
    (texts / "sub" / "deep").mkdir()
    (texts / "sub" / "deep" / "c.txt").write_text("c")
    assert found(texts / "sub" / "**" / "*.txt") == ["b.txt", "deep/c.txt"]
    assert found(texts / "**" / "deep" / "*.txt") == ["c.txt"]
    assert found(texts / "*") == ["a.txt"]
