"""One text is one document, whatever file it lies in: UTF-8, one leading BOM dropped, newlines kept."""

from pathlib import Path

import pytest

from extraction_assets.engine.corpora import decoding
from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.corpora.standard_library import standard_library_files
from extraction_assets.engine.corpora.text_files import TextFiles
from extraction_assets_tests.engine.corpora.build import WRITERS, documents

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
RAW = {
    "crlf": "one\r\ntwo\r\n",
    "cr": "one\rtwo",
    "bom": f"{BOM}text",
    "bom and crlf": f"{BOM}one\r\ntwo",
    "two boms": f"{BOM}{BOM}text",
    "bom inside": f"one{BOM}two",
    "bom alone": BOM,
    "nul": "a\0b",
    "separators": "a\u2028b\x85c\x0bd\x1ce",
    "empty": "",
}
EXPECTED = {**RAW, "bom": "text", "bom and crlf": "one\r\ntwo", "two boms": f"{BOM}text", "bom alone": ""}


@pytest.mark.parametrize("case", RAW)
def test_a_text_file_is_decoded_by_the_rule(tmp_path: Path, case: str) -> None:
    (tmp_path / "a.txt").write_bytes(RAW[case].encode())
    assert documents(tmp_path) == [("a.txt", EXPECTED[case])]


@pytest.mark.parametrize("container", WRITERS)
def test_every_container_is_decoded_by_the_same_rule(tmp_path: Path, container: str) -> None:
    source = WRITERS[container](tmp_path / container, [{"name": name, "text": text} for name, text in RAW.items()])
    assert documents(source, id_column="name") == list(EXPECTED.items())


def test_so_is_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(f"{BOM}x = 1\r\n".encode())
    names, files = zip(*standard_library_files(tmp_path), strict=True)
    assert list(TextFiles(names, files).documents()) == [("a.py", "x = 1\r\n")]


def test_a_bom_before_the_first_line_of_jsonl_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(f'{BOM}{{"text": "one"}}\r\n{{"text": "two"}}\r\n'.encode())
    for seed in (None, 1):
        assert sorted(documents(tmp_path, shuffle_seed=seed)) == [("a.jsonl:1", "one"), ("a.jsonl:2", "two")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_another_encoding_is_refused_with_the_files_name(tmp_path: Path, name: str, encoding: str) -> None:
    (tmp_path / name).write_bytes('{"text": "plain"}\n'.encode(encoding))
    with pytest.raises(CorpusError, match=rf"{name}.* is not (UTF-8 text|JSON)"):
        documents(tmp_path)


def test_a_file_of_zeros_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "cut.txt").write_bytes(b"begin" + bytes(100))
    with pytest.raises(CorpusError, match=r"cut\.txt is not UTF-8 text: half of its bytes or more are NUL"):
        documents(tmp_path)


@pytest.mark.parametrize("container", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_document_has_a_greatest_size(tmp_path: Path, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_DOCUMENT_BYTES", 200)
    if container == "a.txt":
        (tmp_path / container).write_text("x" * 201)
    else:
        WRITERS[container](tmp_path / container, [{"text": "short"}, {"text": "x" * 201}])
    with pytest.raises(CorpusError, match=rf"{container}.* is longer than 200 bytes, .*: split it into several"):
        documents(tmp_path)
