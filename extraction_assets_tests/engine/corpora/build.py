"""The same documents as sources of every kind."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from extraction_assets.engine.corpora.sources import find_source
from extraction_assets.settings import CorpusSettings

ROWS = [{"text": f"text {number} \N{FOX FACE}", "name": f"n{number}", "label": number} for number in range(10)]
TEXTS = [row["text"] for row in ROWS]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(lines, mtime=0) if path.suffix == ".gz" else lines)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    return path


def save_dataset(folder: Path, rows: list[dict[str, Any]]) -> Path:
    from datasets import Dataset

    Dataset.from_list(rows).save_to_disk(str(folder))
    return folder


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "a.jsonl": write_jsonl,
    "a.jsonl.gz": write_jsonl,
    "a.parquet": write_parquet,
    "saved": save_dataset,
}


def documents(source: object, **settings: Any) -> list[tuple[str, Any]]:
    """All documents of a source, token ids as lists."""
    corpus = CorpusSettings(source=str(source), **settings)
    found = find_source(corpus).documents()
    return [(name, text if isinstance(text, str) else text.tolist()) for name, text in found]
