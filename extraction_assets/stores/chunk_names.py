"""The names of chunk files, formed and read here alone: ``<chunk key>-<fingerprint><form>``, and beside a table
``<chunk key>-<fingerprint>.<checksum's first 12 digits>.statistics.safetensors`` and the like (``COMPANIONS``)."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from extraction_assets.catalog import ASSETS, MERGED_TABLES, TOP_K_TABLE, ChunkAsset, asset_row
from extraction_assets.stores.fingerprints import LENGTH

FORMS: dict[ChunkAsset, tuple[str, ...]] = {
    **{row.name: row.files for row in ASSETS if row.partitioned},
    MERGED_TABLES: asset_row(TOP_K_TABLE).files,  # the key is that of the first chunk
}
"""Suffixes of an asset's files, one for each form of their bytes: files are written in the first form and read in any
of these. A file of another form, such as one of a later version of this package, is never opened: its
chunk counts as stale. A new form goes in front, such as ``(".v3.parquet", ".parquet")``, and its reader checks it."""

STATISTICS_FILE, DRAWS_FILE, SAMPLED_FILE = "statistics", "draws", "sampled"

COMPANIONS = {
    STATISTICS_FILE: ".statistics.safetensors",
    DRAWS_FILE: ".draws.pq",  # Parquet; ``*.parquet`` are the tables alone, for other tools that read a folder of them
    SAMPLED_FILE: ".sampled.safetensors",
}
"""Kind of a file beside a table -> how its name ends. The table's record names each by its checksum, as a field of the
kind's name."""

_KIND_OF_END = {end: kind for kind, end in COMPANIONS.items()}
_SEAL_LENGTH = 12


class ChunkFile(NamedTuple):
    """A chunk's file by its name."""

    path: Path
    key: str
    fingerprint: str
    seal: str | None
    """Of a file beside a table: the beginning of the checksum by which its table names it."""
    companion: str | None = None
    """Of a file beside a table: its kind (``COMPANIONS``)."""


def chunk_paths(folder: Path, asset: ChunkAsset, key: str, fingerprint: str) -> list[Path]:
    """Paths of a chunk's file in each form that is read; the first is the one to write."""
    return [folder / name for name in chunk_names(asset, key, fingerprint)]


def chunk_names(asset: ChunkAsset, key: str, fingerprint: str) -> list[str]:
    """Names of a chunk's file in each form that is read."""
    return [f"{key}-{fingerprint}{form}" for form in FORMS[asset]]


def companion_path(table: Path, kind: str, checksum: str) -> Path:
    """Path of a file beside a table, which names its own checksum: two runs on one chunk mix no files."""
    return table.with_name(f"{_stem(table)}.{checksum[:_SEAL_LENGTH]}{COMPANIONS[kind]}")


def tables_of(companion: Path) -> list[Path]:
    """Paths of the table that a file beside it may belong to, in each form."""
    return [companion.with_name(_stem(companion) + form) for form in FORMS[TOP_K_TABLE]]


def chunk_files(paths: Iterable[Path]) -> Iterator[ChunkFile]:
    """Those of the paths that are chunk files in a form that is read, by name."""
    name = _pattern()
    for path in paths:
        match = name.fullmatch(path.name)
        if match:
            kind = _KIND_OF_END[match["companion"]] if match["companion"] else None
            yield ChunkFile(path, match["key"], match["fingerprint"], match["seal"], kind)


def of_any_fingerprint(names: Iterable[str], asset: ChunkAsset) -> Iterator[tuple[str, str]]:
    """(chunk key, name) of those names that are files of an asset's chunks of any fingerprint, those in forms of later
    versions included."""
    ends = tuple({Path(form).suffix or form for form in FORMS[asset]})
    for name in names:
        key, dash, _ = name.partition("-")
        if dash and name.endswith(ends):
            yield key, name


def _pattern() -> re.Pattern[str]:
    ends = "|".join(sorted({re.escape(form) for forms in FORMS.values() for form in forms}))
    beside = "|".join(map(re.escape, COMPANIONS.values()))
    seal = rf"\.(?P<seal>[0-9a-f]{{{_SEAL_LENGTH}}})(?P<companion>{beside})"
    return re.compile(rf"(?P<key>\d{{12,}})-(?P<fingerprint>[0-9a-f]{{{LENGTH}}})(?:{ends}|{seal})")


def _stem(path: Path) -> str:
    """``<chunk key>-<fingerprint>``"""
    return path.name.split(".")[0]
