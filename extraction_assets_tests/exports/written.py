"""Exports of a test: what is written, without a bar."""

import contextlib
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.connect import opened_database
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.exports.checkpoints_and_files import Declared
from extraction_assets.exports.folders import LocalFolder
from extraction_assets.exports.source import ExportSource
from extraction_assets.exports.write_export import export
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets_tests.project import Project


class Counted:
    """Counts features instead of showing them."""

    def __init__(self) -> None:
        self.done = self.skipped = 0

    def __call__(self, count: int) -> None:
        self.done += count

    def skip(self, count: int) -> None:
        self.skipped += count


def source_of(
    connection: sa.Connection, name: str = "small", sae: str = "one", features: Sequence[int] | None = None
) -> ExportSource:
    """What is exported of an SAE, without its checkpoint."""
    return ExportSource(connection, find_extraction(connection, name, sae), features)


@contextlib.contextmanager
def declared_source(project: Project, sae: str) -> Iterator[ExportSource]:
    """What is exported of an SAE of a project that declares it."""
    declared = Declared(project.settings, ChunkStore(project.home))
    with opened_database(project.url) as engine, engine.connect() as connection:
        extraction = find_extraction(connection, project.settings.name, sae)
        yield ExportSource(connection, extraction, declared=declared)


class Written(NamedTuple):
    """An export that was written."""

    folder: Path
    written: int
    """Files that were not there before."""


def write(source: ExportSource, export_format: str, folder: Path, **options: str) -> Written:
    """An export, all of it."""
    return Written(folder, export(source, export_format, LocalFolder(folder), Counted(), options).written)


def json_lines(path: Path) -> list[Any]:
    """The values of a file of JSON lines, compressed or not."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode().splitlines()]
