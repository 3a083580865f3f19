"""What a source is, is found by looking at it; what cannot be meant is refused."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extraction_assets.engine.corpora import parquet
from extraction_assets.engine.corpora.documents import CorpusError, document_order
from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.settings import STANDARD_LIBRARY, CorpusSettings
from extraction_assets_tests.engine.corpora.build import ROWS, TEXTS, WRITERS, documents, write_jsonl, write_parquet

# Text files


def test_a_folders_files_come_sorted_and_named_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.txt", "b/a.txt", "b/c.md"):
        (tmp_path / name).write_text(name)
    assert documents(tmp_path) == [(name, name) for name in ("b/a.txt", "b/c.md", "z.txt")]


def test_a_file_and_a_glob_are_sources_too(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    assert documents(tmp_path / "c.md") == [("c.md", "c.md")]
    assert [name for name, _ in documents(tmp_path / "*.txt")] == ["a.txt", "b.txt"]


def test_a_folder_with_glob_characters_in_its_name_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "corpus [v1]"
    folder.mkdir()
    (folder / "a.txt").write_text("text")
    assert documents(folder) == [("a.txt", "text")]


def test_a_source_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus source '.*nothing' matches no file"):
        documents(tmp_path / "nothing")


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(CorpusError, match=r"image\.png is not UTF-8 text"):
        documents(tmp_path)


def test_the_standard_library_is_a_corpus() -> None:
    name, text = next(find_source(CorpusSettings(source=STANDARD_LIBRARY)).documents())
    assert name.endswith(".py")
    assert isinstance(text, str)


# Kinds


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    source = WRITERS[name](tmp_path / name, ROWS)
    assert [text for _, text in documents(source)] == TEXTS
    assert documents(source, id_column="name") == [(row["name"], row["text"]) for row in ROWS]
    assert documents(source, id_column="label")[3] == ("3", TEXTS[3])


@pytest.mark.parametrize("name", WRITERS)
def test_documents_are_numbered_without_ids(tmp_path: Path, name: str) -> None:
    first = {"a.jsonl": "a.jsonl:1", "a.jsonl.gz": "a.jsonl.gz:1", "a.parquet": "a.parquet:0", "saved": "0"}
    ids = [own for own, _ in documents(WRITERS[name](tmp_path / name, ROWS))]
    assert ids[0] == first[name]
    assert len(set(ids)) == len(ROWS)


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_column_lists_those_there_are(tmp_path: Path, name: str) -> None:
    source = WRITERS[name](tmp_path / name, ROWS)
    with pytest.raises(CorpusError, match=r"has no column 'content'; it has 'text', 'name', 'label'"):
        documents(source, text_column="content")
    with pytest.raises(CorpusError, match="has no column 'doc_id'"):
        documents(source, id_column="doc_id")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("value", [None, "number"])
def test_text_that_is_none_names_its_document(tmp_path: Path, name: str, value: str | None) -> None:
    rows = [{**row, "text": row["text"] if value is None else row["label"]} for row in ROWS]
    rows[4]["text"] = None
    source = WRITERS[name](tmp_path / name, rows)
    wrong = "document 'n4'" if value is None else "document 'n0'"
    with pytest.raises(CorpusError, match=rf"{wrong}\): column 'text' holds (NoneType None|int 0), not text"):
        documents(source, id_column="name")


def test_files_of_a_folder_are_one_source_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "2.parquet", ROWS[:4])
    write_parquet(tmp_path / "1.parquet", ROWS[4:])
    assert [text for _, text in documents(tmp_path)] == TEXTS[4:] + TEXTS[:4]


def test_files_of_two_kinds_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    (tmp_path / "README.md").write_text("about the data")
    with pytest.raises(CorpusError, match=r"mixes Parquet files \(a.parquet\) and text files \(README.md\): name one"):
        documents(tmp_path)
    assert len(documents(tmp_path / "*.parquet")) == len(ROWS)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("text_column", "body"), ("token_column", "ids"), ("split", "test"), ("streaming", True), ("revision", "main")],
)
def test_a_setting_without_a_meaning_for_text_files_is_refused(tmp_path: Path, setting: str, value: Any) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(CorpusError, match=rf"corpus.{setting} is .* is text files, for which it has no meaning"):
        documents(tmp_path, **{setting: value})


@pytest.mark.parametrize(
    ("name", "setting"), [("a.jsonl", "split"), ("a.parquet", "split"), ("saved", "configuration")]
)
def test_so_is_one_of_a_hub_data_set_elsewhere(tmp_path: Path, name: str, setting: str) -> None:
    with pytest.raises(CorpusError, match=f"corpus.{setting} is 'x', but"):
        documents(WRITERS[name](tmp_path / name, ROWS), **{setting: "x"})


# Order


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "saved"])
def test_a_seed_shuffles_documents_with_their_ids_in_one_way(tmp_path: Path, name: str) -> None:
    source = WRITERS[name](tmp_path / name, ROWS)
    plain, shuffled = documents(source), documents(source, shuffle_seed=7)
    assert shuffled == [plain[index] for index in document_order(len(ROWS), 7)] != plain
    assert documents(source, shuffle_seed=7) == shuffled != documents(source, shuffle_seed=8)


def test_text_files_are_shuffled_in_that_way_too(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text(str(number))
    expected = [(f"{index}.txt", str(index)) for index in document_order(10, 7)]
    assert documents(tmp_path, shuffle_seed=7) == expected


def test_the_order_of_a_seed_stays_from_version_to_version() -> None:
    assert document_order(10, 7).tolist() == ORDER_OF_SEED_7
    assert document_order(4, None).tolist() == [0, 1, 2, 3]


ORDER_OF_SEED_7 = [6, 3, 4, 9, 0, 2, 8, 7, 5, 1]


def test_shuffled_documents_may_lie_in_several_files(tmp_path: Path) -> None:
    for name, write in (("jsonl", write_jsonl), ("parquet", write_parquet)):
        write(tmp_path / f"1.{name}", ROWS[:4])
        write(tmp_path / f"2.{name}", ROWS[4:])
        found = documents(tmp_path / f"*.{name}", shuffle_seed=7, id_column="name")
        assert [own for own, _ in found] == [f"n{index}" for index in document_order(len(ROWS), 7)]


def test_a_compressed_file_cannot_be_shuffled(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl.gz", ROWS)
    with pytest.raises(CorpusError, match=r"a\.jsonl\.gz cannot be read in another order, because it is compressed"):
        documents(source, shuffle_seed=7)


def test_rows_keep_their_numbers_in_whatever_groups_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_BATCH_ROWS", "_SHUFFLED_ROWS"):
        monkeypatch.setattr(parquet, name, 4)
    source = write_parquet(tmp_path / "a.parquet", ROWS)
    plain = [(f"a.parquet:{number}", text) for number, text in enumerate(TEXTS)]
    assert documents(source) == plain
    assert documents(source, shuffle_seed=7) == [plain[index] for index in ORDER_OF_SEED_7]


# Broken files


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a", }', "line 3 is not JSON"),
        (b'{"text": "\xff"}', "line 3 is not JSON"),
        (b'"just text"', "line 3 holds a JSON str, not an object"),
        (b'{"text": "\\ud800"}', "line 3 .* holds text that is not Unicode"),
        (b'{"other": 1}', "line 3 has no column 'text'; it has 'other'"),
    ],
    ids=str,
)
def test_a_line_that_is_wrong_is_named_with_its_file(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n\n' + line + b"\n")
    with pytest.raises(CorpusError, match=rf"a\.jsonl, {message}"):
        documents(tmp_path / "a.jsonl")


def test_blank_lines_are_no_documents_and_the_last_line_needs_no_end(tmp_path: Path) -> None:
    text = "a\u2028b"  # a line separator to Unicode, not to JSONL
    (tmp_path / "a.jsonl").write_text(f'\n{{"text": "{text}"}}\n\n{{"text": "c"}}', "utf-8")
    assert documents(tmp_path / "a.jsonl") == [("a.jsonl:2", text), ("a.jsonl:4", "c")]
    assert sorted(documents(tmp_path / "a.jsonl", shuffle_seed=1)) == [("a.jsonl:2", text), ("a.jsonl:4", "c")]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_cut_file_is_named(tmp_path: Path, name: str, share: float) -> None:
    path = WRITERS[name](tmp_path / name, ROWS * 40)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(CorpusError, match=rf"{name} (is not a Parquet file|cannot be (read|decompressed))"):
        documents(path)


def test_a_parquet_file_that_is_altered_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:4] + bytes(120) + path.read_bytes()[124:])
    with pytest.raises(CorpusError, match=r"a\.parquet"):
        documents(path)
    with pytest.raises(CorpusError, match=r"a\.parquet"):
        documents(path, shuffle_seed=1)


# Tokens


TOKENS = [
    {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "name": "whole"},
    {"input_ids": [5, 6, 0], "attention_mask": [1, 1, 0], "name": "right"},
    {"input_ids": [0, 0, 8], "attention_mask": [0, 0, 1], "name": "left"},
    {"input_ids": [0, 9, 0], "attention_mask": [0, 1, 0], "name": "both"},
    {"input_ids": [], "attention_mask": [], "name": "empty"},
    {"input_ids": [0, 0], "attention_mask": [0, 0], "name": "padding"},
]


@pytest.mark.parametrize("name", WRITERS)
def test_tokens_are_taken_as_they_are_unless_a_mask_says_what_is_padding(tmp_path: Path, name: str) -> None:
    """Token 0 may be a token and the padding too: ids are never looked at."""
    source = WRITERS[name](tmp_path / name, TOKENS)
    assert [ids for _, ids in documents(source, token_column="input_ids")] == [row["input_ids"] for row in TOKENS]
    masked = documents(source, token_column="input_ids", attention_mask_column="attention_mask", id_column="name")
    assert masked == [
        ("whole", [5, 6, 7]),
        ("right", [5, 6]),
        ("left", [8]),
        ("both", [9]),
        ("empty", []),
        ("padding", []),
    ]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}, "'attention_mask' has a hole at position 1"),
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 1]}, "'attention_mask' has 2 values for 3 tokens"),
        ({"input_ids": [1, 2], "attention_mask": [2, 1]}, "values other than 0 and 1"),
        ({"input_ids": None, "attention_mask": [1]}, "'input_ids' holds NoneType None, not a list of whole numbers"),
        ({"input_ids": [3, None], "attention_mask": [1, 1]}, "'input_ids' holds .*not a list of whole numbers"),
    ],
    ids=str,
)
def test_tokens_or_a_mask_that_are_wrong_name_their_document(
    tmp_path: Path, name: str, row: dict[str, Any], message: str
) -> None:
    source = WRITERS[name](tmp_path / name, [TOKENS[0], {**row, "name": "bad"}])
    with pytest.raises(CorpusError, match=rf"document 'bad'\): .*{message}"):
        documents(source, token_column="input_ids", attention_mask_column="attention_mask", id_column="name")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("ids", ["text", [1.5, 2.5], [[1], [2]]], ids=str)
def test_a_column_of_something_else_is_no_tokens(tmp_path: Path, name: str, ids: Any) -> None:
    source = WRITERS[name](tmp_path / name, [{"input_ids": ids}])
    with pytest.raises(CorpusError, match=r"column 'input_ids' holds \w+ .*, not a list of whole numbers"):
        documents(source, token_column="input_ids")


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_of_any_type_of_parquet_is_shuffled(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(TEXTS, pa.string()).cast(kind)}), tmp_path / "a.parquet")
    assert sorted(text for _, text in documents(tmp_path, shuffle_seed=0)) == sorted(TEXTS)


@pytest.mark.parametrize("kind", [pa.list_view(pa.int64()), pa.large_list_view(pa.int32()), pa.list_(pa.int32())])
def test_tokens_of_any_type_of_parquet_are_shuffled(tmp_path: Path, kind: pa.DataType) -> None:
    tokens = [[1, 2, 3], [4], [5, 6]]
    pq.write_table(pa.table({"ids": pa.array(tokens, kind)}), tmp_path / "a.parquet")
    for seed in (None, 0):
        found = documents(tmp_path, token_column="ids", shuffle_seed=seed)
        assert sorted(ids for _, ids in found) == tokens
