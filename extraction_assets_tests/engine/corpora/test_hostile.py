"""Damaged and hostile corpus files: one sentence with the file's name, whatever a parser makes of them."""

import bz2
import gzip
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.engine.corpora import decoding, parquet
from extraction_assets.engine.corpora.boundary import one_sentence, reason
from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.settings import CorpusSettings
from extraction_assets_tests.engine.corpora.build import (
    ROWS,
    TEXTS,
    documents,
    save_dataset,
    write_jsonl,
    write_parquet,
)


def refused(source: Path, **settings: Any) -> str:
    """The sentence that a source is refused with."""
    with pytest.raises(CorpusError) as caught:
        documents(source, **settings)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 700 + len(str(source))
    return message


# JSONL

DEEP = "[" * 200_000 + "]" * 200_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f'{{"text": "a", "more": {DEEP}}}', "line 2 is not JSON (RecursionError"),
        (DEEP, "line 2 is not JSON (RecursionError"),
        ('{"a": ' * 200_000, "line 2 is not JSON (RecursionError"),
        ('{"text": NaN}', "column 'text' holds float nan, not text"),
        ('{"text": "a", "text": "b"}', "line 2 has the key 'text' twice"),
        ('{"text": "a\\ud800b"}', "column 'text' holds text that is not Unicode"),
        (f'{{"text": {"9" * 5000}}}', "line 2 is not JSON (Exceeds the limit"),
        (f'{{"text": {[[["x" * 1000]] * 1000]}}}'.replace("'", '"'), "column 'text' holds list [[["),
        ("\0" * 50, "line 2 is not JSON"),
        ('{"text": "a\0b"}', "line 2 is not JSON (Invalid control character"),
        ('{"text": "a"', "line 2 is not JSON"),
        ("null", "line 2 holds a JSON NoneType, not an object"),
        ("[]", "line 2 holds a JSON list, not an object"),
        ("{}", "line 2 has no column 'text'; it has none"),
    ],
    ids=lambda value: value[:20],
)
def test_a_hostile_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "good"}}\n{line}\n', "utf-8")
    for seed in (None, 1):
        sentence = refused(tmp_path, shuffle_seed=seed)
        assert "a.jsonl, line 2" in sentence
        assert message in sentence


@pytest.mark.parametrize("name", ['"\\ud800"', "1.5", "[1]", "{}", "true", "null"])
def test_an_id_that_cannot_be_one_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "id": {name}}}')
    assert "a.jsonl, line 1: column 'id' holds" in refused(tmp_path, id_column="id")


@pytest.mark.parametrize("ids", ["[NaN]", "[1e400]", f"[{2**70}]", "[[1], 2]", "[true, null]", '["1"]', "{}", "3"])
def test_tokens_that_cannot_be_any_are_named(tmp_path: Path, ids: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"ids": {ids}}}')
    assert "a.jsonl, line 1 (document 'a.jsonl:1'): column 'ids' holds" in refused(tmp_path, token_column="ids")


def test_a_row_of_very_many_keys_is_refused_in_one_short_sentence(tmp_path: Path) -> None:
    keys = ", ".join(f'"{number}": 0' for number in range(200_000))
    (tmp_path / "a.jsonl").write_text(f'{{"0": 1, {keys}}}')
    assert "has no column 'text'; it has '0', '1', '2'" in (sentence := refused(tmp_path))
    assert sentence.endswith("and 199980 more")


def test_an_id_may_be_long_and_hold_nul(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "id": "a\\u0000b"}\n{"text": 1, "id": "%s"}' % ("x" * 100_000))
    source = find_source(CorpusSettings(source=str(tmp_path), id_column="id")).documents()
    assert next(source) == ("a\\x00b", "one")
    assert "line 2 (document 'xxx" in refused(tmp_path, id_column="id")


def test_keys_that_are_not_read_may_stand_twice_and_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": NaN, "a": 1, "text": "one", "b": {"text": "x", "text": "y"}}\n')
    assert documents(tmp_path) == [("a.jsonl:1", "one")]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress])
def test_a_bomb_costs_no_more_than_the_greatest_document(
    tmp_path: Path, pack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_DOCUMENT_BYTES", 1 << 20)
    name = {"gzip": "a.jsonl.gz", "bz2": "a.jsonl.bz2"}[pack.__module__]
    (tmp_path / name).write_bytes(pack(b"x" * (1 << 26)))
    assert "line 1 is longer than 1 MiB, the most that one document may have" in refused(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.bz2", "a.jsonl.zst"])
def test_a_compressed_file_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"text": "plain"}\n')
    assert f"{name} cannot be decompressed" in refused(tmp_path)


def test_every_flipped_byte_of_a_compressed_file_gives_documents_or_one_sentence(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl.gz", ROWS)
    raw = path.read_bytes()
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x20]) + raw[place + 1 :])
        _documents_or_one_sentence(path, "a.jsonl.gz")


# Parquet


def _documents_or_one_sentence(path: Path, name: str, **settings: Any) -> list[Any]:
    found, sentence = [], name
    try:
        found = documents(path, **settings)
    except CorpusError as error:
        sentence = str(error)
    assert name in sentence
    assert len(sentence.splitlines()) == 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 1])
def test_every_flipped_bit_of_a_footer_gives_documents_or_one_sentence(tmp_path: Path, seed: int | None) -> None:
    path = write_parquet(tmp_path / "a.parquet", ROWS)
    raw = path.read_bytes()
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    for place in range(footer, len(raw)):
        for bit in range(8) if place >= len(raw) - 8 else (place % 8,):
            path.write_bytes(raw[:place] + bytes([raw[place] ^ (1 << bit)]) + raw[place + 1 :])
            _documents_or_one_sentence(path, "a.parquet", shuffle_seed=seed)


def test_every_cut_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ROWS)
    raw = path.read_bytes()
    for size in range(0, len(raw), 7):
        path.write_bytes(raw[:size])
        assert "a.parquet is not a Parquet file, or a damaged one" in refused(path)


@pytest.mark.slow
def test_flipped_pages_give_documents_or_one_sentence(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ROWS)
    raw = path.read_bytes()
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    for place in range(4, footer, 2):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])
        _documents_or_one_sentence(path, "a.parquet")
        _documents_or_one_sentence(path, "a.parquet", token_column="label")


def test_a_file_that_gives_fewer_rows_than_it_says_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = parquet._batches
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 4)
    monkeypatch.setattr(parquet, "_batches", lambda *arguments: list(real(*arguments))[:-1])
    path = write_parquet(tmp_path / "a.parquet", ROWS)
    assert "a.parquet is damaged (it holds 8 rows, and says 10)" in refused(path)


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "a.parquet has 2 columns 'text': which one is meant?" in refused(tmp_path)


# Saved data sets


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"_data_files": 3}', '{"_data_files": [{}]}', '{"_data_files": [{"filename": 1}]}', "\xff"]
)
def test_a_hostile_state_file_is_named(tmp_path: Path, text: str) -> None:
    folder = save_dataset(tmp_path / "saved", ROWS)
    (folder / "state.json").write_text(text, "latin-1")
    assert "state.json is damaged" in refused(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"splits": 3}', '{"splits": null}'])
def test_a_hostile_list_of_splits_is_named(tmp_path: Path, text: str) -> None:
    save_dataset(tmp_path / "saved" / "train", ROWS)
    (tmp_path / "saved" / "dataset_dict.json").write_text(text)
    assert "dataset_dict.json is damaged" in refused(tmp_path / "saved")


def test_a_cut_arrow_file_is_named(tmp_path: Path) -> None:
    folder = save_dataset(tmp_path / "saved", ROWS)
    (file,) = folder.glob("*.arrow")
    raw = file.read_bytes()
    for size in range(0, len(raw) - 8, 16):
        file.write_bytes(raw[:size])
        assert len(_documents_or_one_sentence(folder, "saved")) < len(TEXTS)
    file.write_bytes(raw)
    (folder / "dataset_info.json").write_text("[]")
    assert "saved cannot be read" in refused(folder)


# The boundary


def test_the_boundary_lets_errors_of_the_file_system_pass() -> None:
    for passing in (PermissionError(13, "Permission denied", "a.txt"), ConnectionError("no network"), TimeoutError()):
        with pytest.raises(type(passing)), one_sentence("a.txt"):
            raise passing
    with pytest.raises(CorpusError, match=r"a\.txt is damaged \(bad magic\)"), one_sentence("a.txt is damaged"):
        raise OSError("bad\n  magic")


def test_a_reason_is_one_line_and_has_words() -> None:
    assert reason(ValueError("a\n b" + "x" * 1000))[:6] == "a bxxx"
    assert len(reason(ValueError("x" * 1000))) == 300
    assert reason(KeyError("splits")) == "KeyError: 'splits'"
    assert reason(MemoryError()) == "MemoryError"
