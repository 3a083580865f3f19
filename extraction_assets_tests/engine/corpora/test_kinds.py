"""What a file is read as goes by its name; a data format that is not read is refused with what to do."""

from pathlib import Path
from typing import Any

import pytest

from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.corpora.kinds import file_kind
from extraction_assets_tests.engine.corpora.build import ROWS, TEXTS, documents, write_jsonl, write_parquet


@pytest.mark.parametrize("name", ["DATA.JSONL", "Data.NdJson", "a.Parquet", "A.JSONL.gz", "a.jsonlines", "a.parq"])
def test_the_end_of_a_name_may_be_in_any_case(tmp_path: Path, name: str) -> None:
    write = write_parquet if name.lower().endswith((".parquet", ".parq")) else write_jsonl
    assert [text for _, text in documents(write(tmp_path / name, ROWS))] == TEXTS


def test_compression_is_recognized_in_any_case_too(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl.gz", ROWS).rename(tmp_path / "A.JSONL.GZ")
    assert [text for _, text in documents(tmp_path)] == TEXTS
    with pytest.raises(CorpusError, match=r"A\.JSONL\.GZ cannot be read in another order, because it is compressed"):
        documents(tmp_path, shuffle_seed=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data.json", "is a JSON file, which is not read: write its documents as JSONL .* or to jsonl if it holds one"),
        ("DATA.JSON", "is a JSON file"),
        ("notebook.ipynb", "is a JSON file"),
        ("data.json5", "is a JSON file"),
        ("a.jsonl~", "is a copy that was set aside of data, which is not read: remove it"),
        ("a.csv.bak", "is a copy that was set aside of data"),
        ("t.csv", "is a table of delimited values, .* or set corpus.read_as to text if each file with its syntax is"),
        ("t.TSV", "is a table of delimited values"),
        ("t.xlsx", "is a spreadsheet, which is not read: write its documents as JSONL"),
        ("t.arrow", "is a table in a binary format"),
        ("t.feather", "is a table in a binary format"),
        ("texts.zip", "is an archive, which is not read: unpack it"),
        ("texts.tar.gz", "is a compressed file, which is not read: unpack it"),
        ("text.txt.gz", "is a compressed file"),
        ("data.json.gz", "is a compressed file"),
        ("a.jsonl.xz", "is a compressed file"),
        ("paper.pdf", "is a document, which is not read: export its text to .txt files"),
        ("paper.docx", "is a document"),
    ],
)
def test_a_data_format_that_is_not_read_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text('{"text": "a"}\n')
    with pytest.raises(CorpusError, match=rf"{name} {message}"):
        documents(tmp_path / name)


def test_one_such_file_in_a_folder_of_texts_is_named_and_a_glob_leaves_it_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"meta\.json is a JSON file, .*or name the files to read by a glob"):
        documents(tmp_path)
    assert documents(tmp_path / "*.txt") == [("a.txt", "text")]


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.jsonl", "a.txt"])
def test_read_as_text_takes_each_file_as_one_document(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"text": "a"}\n')
    assert documents(tmp_path, read_as="text") == [(name, '{"text": "a"}\n')]


def test_read_as_jsonl_takes_files_with_another_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.json", ROWS)
    assert [text for _, text in documents(tmp_path, read_as="jsonl")] == TEXTS
    write_parquet(tmp_path / "b", ROWS)
    assert [text for _, text in documents(tmp_path / "b", read_as="parquet")] == TEXTS


def test_read_as_something_that_a_file_is_not_names_the_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    for kind in ("text", "jsonl"):
        with pytest.raises(CorpusError, match=r"a\.parquet.* is not (UTF-8 text|JSON)"):
            documents(tmp_path, read_as=kind)


@pytest.mark.parametrize("source", ["standard-library", "owner/name"])
def test_read_as_has_no_meaning_but_for_files(source: str) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.read_as is 'text', but corpus source"):
        documents(source, read_as="text")


@pytest.mark.parametrize(
    "name", ["a", "README.md", "page.html", "x.xml", "c.yaml", "m.py", "v1.2", "json", ".json.txt", "news.pt"]
)
def test_markup_and_source_code_are_plain_text(name: str) -> None:
    assert file_kind(Path(name)) == "text"


def test_setting_read_as_changes_the_recipe_and_its_default_does_not(tiny_folder: Path) -> None:
    from extraction_assets.planning.plan import corpus_recipe
    from extraction_assets_tests.tiny import make_settings

    def recipe(**corpus: Any) -> str:
        return corpus_recipe(make_settings(tiny_folder, corpus={"source": "/x", **corpus}))

    assert recipe() == recipe(read_as="auto") != recipe(read_as="text")
