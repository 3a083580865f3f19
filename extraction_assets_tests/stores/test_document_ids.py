"""Ids of documents are written some at a time as one JSON list, and read from the disk one by one."""

import io
import json
import random
import tracemalloc
from pathlib import Path

import pytest

from extraction_assets.stores import document_ids
from extraction_assets.stores.document_ids import DocumentIds, DocumentIdsWriter
from extraction_assets.stores.sealed import DamagedFileError

IDS = ["a", "", 'quote " and \\', "line\nbreak\x00", "İstanbul 🦊", "\ud800", "], [", *map(str, range(40))]


def written(parts: list[list[str]]) -> bytes:
    file = io.BytesIO()
    writer = DocumentIdsWriter(file)
    for part in parts:
        writer.add(part)
    writer.end()
    return file.getvalue()


def read(folder: Path, data: bytes) -> DocumentIds:
    (folder / "ids.json").write_bytes(data)
    return DocumentIds(folder / "ids.json", "tokenize again")


@pytest.mark.parametrize("size", [1, 7, 100])
def test_parts_are_written_as_one_list(size: int) -> None:
    parts = [IDS[at : at + size] for at in range(0, len(IDS), size)]
    assert written([[], *parts, []]) == json.dumps(IDS).encode()
    assert written([]) == b"[]"


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, len(IDS)])
def test_each_text_is_found(tmp_path: Path, count: int) -> None:
    ids = read(tmp_path, written([IDS[:count]]))
    assert (len(ids), list(ids)) == (count, IDS[:count])
    order = random.Random(0).sample(range(count), count)
    assert [ids[number] for number in order] == [IDS[number] for number in order]
    assert [ids[number - count] for number in order] == [IDS[number] for number in order]
    assert ids[2:9] == IDS[:count][2:9]
    for outside in (count, -count - 1):
        with pytest.raises(IndexError):
            ids[outside]


def test_a_list_with_other_spaces_is_read(tmp_path: Path) -> None:
    assert list(read(tmp_path, b'[\n "a","b" ,  "c"\n]\n')) == ["a", "b", "c"]
    assert list(read(tmp_path, b"[ ]\n")) == []


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[", b"]", b"{}", b'"a"', b'["a"', b'["a",]', b'["a" "b"]', b'["a", 1]', b'[1, "a"]', b'["a"] x',
        b'["a"]["b"]', b'["\\x"]', b'["\\u12"]', b'["a\n"]', b'["\xff"]', b'[["a"]]', b'[, "a"]', b"[]]", b'["a\\"]',
    ],
    ids=repr,
)  # fmt: skip
def test_anything_else_is_damaged(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DamagedFileError, match=r"ids\.json is damaged: it is no list of document ids; tokenize again"):
        read(tmp_path, data)


def test_a_long_list_is_not_held(tmp_path: Path) -> None:
    data = written([[f"document {number} of many" for number in range(20_000)]])
    tracemalloc.start()
    try:
        ids = read(tmp_path, data)
        assert ids[19_999] == "document 19999 of many"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(data) / 10
    assert len(ids._places) == len(ids) / document_ids._SPACING
