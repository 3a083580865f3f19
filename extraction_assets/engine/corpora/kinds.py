"""What a corpus file is, by the end of its name."""

import re
from pathlib import Path
from typing import Literal

FileKind = Literal["text", "jsonl", "parquet"]

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
"""Compressions of JSONL files that are read, as Arrow calls them."""

_JSONL = (".jsonl", ".ndjson", ".jsonlines")
_READ: dict[str, FileKind] = {
    **dict.fromkeys(_JSONL, "jsonl"),
    **{f"{kind}{packed}": "jsonl" for kind in _JSONL for packed in COMPRESSIONS},
    **dict.fromkeys((".parquet", ".parq", ".pq"), "parquet"),
}

_JSON_SUFFIXES = (".json", ".json5", ".jsonc", ".hjson", ".jsonld", ".geojson", ".topojson", ".har", ".ipynb")
_AS_ROWS = "write its documents as JSONL (one a line) or Parquet (one a row)"
_ROWS = f"{_AS_ROWS}, or set corpus.read_as to text if each file with its syntax is one document"
_JSON = f"{_ROWS}, or to jsonl if it holds one object a line"
_EXPORT = f"export its text to .txt files, or {_AS_ROWS}"
_UNPACK = "unpack it"
_NOT_READ = {
    **dict.fromkeys((*_JSON_SUFFIXES,), ("a JSON file", _JSON)),
    **dict.fromkeys((".csv", ".tsv", ".tab", ".psv"), ("a table of delimited values", _ROWS)),
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), ("a spreadsheet", _AS_ROWS)),
    **dict.fromkeys((".arrow", ".feather", ".ipc", ".orc", ".avro"), ("a table in a binary format", _AS_ROWS)),
    **dict.fromkeys((".sqlite", ".sqlite3", ".db", ".duckdb", ".lmdb", ".mdb"), ("a database", _AS_ROWS)),
    **dict.fromkeys((".h5", ".hdf5", ".npy", ".npz", ".mat", ".tfrecord"), ("a file of arrays", _AS_ROWS)),
    **dict.fromkeys((".pkl", ".pickle", ".pth", ".bin", ".safetensors"), ("a file of objects", _AS_ROWS)),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".odt", ".rtf", ".epub", ".ppt", ".pptx"), ("a document", _EXPORT)),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar", ".whl", ".jar"), ("an archive", _UNPACK)),
    **dict.fromkeys((*COMPRESSIONS, ".xz", ".lzma", ".lz4", ".z", ".snappy"), ("a compressed file", _UNPACK)),
}
"""Suffix -> (what it is, what to do with it): formats that hold documents inside other structure.
Markup and source code (.md, .html, .xml, .yaml, .tex, .py …) is plain text; so is a language (.en, .pt)."""


_COPY = re.compile(r"(~|\.(bak|backup|old|orig|tmp))$", re.IGNORECASE)


def file_kind(path: Path) -> FileKind | None:
    """What a file is read as; None for a format that is not read. Letters of either case are one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    last, both = "".join(suffixes[-1:]), "".join(suffixes[-2:])
    if _is_copy_of_data(path):
        return None
    return _READ.get(both) or _READ.get(last) or (None if last in _NOT_READ else "text")


def not_read(path: Path) -> tuple[str, str]:
    """What a file is that is not read, and what to do with it."""
    if _is_copy_of_data(path):
        return "a copy that was set aside of data", "remove it, or give it the name of what it is"
    return _NOT_READ[path.suffix.lower()]


def _is_copy_of_data(path: Path) -> bool:
    """Whether a file is called as editors and people call copies, ``a.jsonl.bak`` or ``a.csv~``, of a data format."""
    original = _COPY.sub("", path.name)
    return original not in ("", path.name) and file_kind(path.with_name(original)) != "text"


def compression(path: Path) -> str | None:
    """How a JSONL file is compressed, by its name, as Arrow calls it."""
    return COMPRESSIONS.get(path.suffix.lower())
