"""The files in the chunk store. A file that is not recognised here is never removed."""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from extraction_assets.catalog import CORPUS, FEATURE_EXPORTS, MERGED_TABLES, asset_row, folders
from extraction_assets.stores.chunk_names import chunk_files
from extraction_assets.stores.chunk_store import ChunkStore, read_pointer
from extraction_assets.stores.fingerprints import LENGTH
from extraction_assets.stores.sealed import DamagedFileError, nobody_writing

SAFE_AGE_SECONDS = 3600.0
"""A temporary that changed within the last hour may belong to a run of another host, whose locks are not seen here."""

# Ours are .NAME.<uuid>.tmp, replaced corpora .<uuid>.damaged; safetensors writes through .tmp and six characters.
_TEMPORARY = re.compile(r"\.(?:.+\.)?[0-9a-f]{32}\.(?:tmp|damaged)|\.tmp[A-Za-z0-9]{6}")
_CORPUS = re.compile(rf"[0-9a-f]{{{LENGTH}}}")


class Item(NamedTuple):
    """A file, or a whole folder, that may be removed."""

    kind: str
    """Why it may be removed."""
    asset: str
    """The folder it lies in, as an asset is written: ``demo/layer1/top_k_table``."""
    path: Path
    bytes: int


class UnreadablePointer(ValueError):
    """A ``corpus.json`` that does not say which corpus it names."""


def item(kind: str, path: Path, store: ChunkStore) -> Item:
    """An item, file or folder, with its size."""
    return Item(kind, path.parent.relative_to(store.root).as_posix(), path, size_of(path))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if it was removed meanwhile. Links are not followed."""
    try:
        if _is_folder(path):
            return sum(size_of(inside) for inside in path.iterdir())
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def temporaries(folder: Path) -> list[Path]:
    """Files and folders under a temporary name."""
    return [path for path in _inside(folder) if _TEMPORARY.fullmatch(path.name)]


def asset_folders(extraction: Path) -> Iterator[Path]:
    """Folders of an extraction in which files are written, of SAEs that are no longer declared too."""
    yield extraction
    yield from (extraction / name for name in folders("extraction"))
    for sae in stored_saes(extraction):
        yield from (extraction / sae / name for name in folders("sae"))


def stored_saes(extraction: Path) -> list[str]:
    """Names of the SAEs that have files."""
    inside = [path for path in _inside(extraction) if path.is_dir()]
    return [path.name for path in inside if any((path / name).is_dir() for name in folders("sae"))]


def stored_extractions(store: ChunkStore) -> list[str]:
    """Names of the extractions that have files under this root, whoever declares them."""
    inside = [path for path in _inside(store.root) if path.is_dir() and not path.name.startswith(".")]
    return [
        path.name
        for path in inside
        if path != store.corpora
        and (
            store.pointer(path.name).is_file()
            or any((path / name).is_dir() for name in folders("extraction"))
            or stored_saes(path)
        )
    ]


def own_files(extraction: Path, sae: str | None = None) -> Iterator[Path]:
    """Every recognised file of an extraction, or of one of its SAEs."""
    inside = [extraction / sae / name for name in folders("sae")] if sae else list(asset_folders(extraction))
    for folder in inside:
        yield from (chunk.path for chunk in chunk_files(_inside(folder)))
        yield from temporaries(folder)
        if folder.name == FEATURE_EXPORTS:
            yield from _export_files(folder)
        if folder.name in (FEATURE_EXPORTS, MERGED_TABLES):
            continue
        row = asset_row(CORPUS if folder == extraction else folder.name)
        if not row.partitioned:
            yield from (folder / name for name in row.files if (folder / name).is_file())


def _export_files(folder: Path) -> Iterator[Path]:
    """All files of the exports of an SAE, a folder each: one with a manifest holds nothing else."""
    for inside in _inside(folder):
        if inside.is_dir() and any((inside / name).is_file() for name in asset_row(FEATURE_EXPORTS).files):
            yield from (path for path in sorted(inside.rglob("*")) if path.is_file())


def unnamed_corpora(store: ChunkStore, without: str | None = None) -> list[Path]:
    """Stored corpora that no extraction's pointer names, the pointer of ``without`` left out.

    Pointers of every extraction under this root count, declared or not. UnreadablePointer if one cannot be read.
    """
    pointers = [store.pointer(folder.name) for folder in _inside(store.root) if folder.name != without]
    named = {_named_corpus(path, store.corpora) for path in pointers if os.path.lexists(path)}
    corpora = [path for path in _inside(store.corpora) if path.is_dir() and _CORPUS.fullmatch(path.name)]
    return [path for path in corpora if path.name not in named]


def is_old(path: Path) -> bool:
    """Whether a file, or everything in a folder, was left unchanged for the safe age."""
    try:
        inside = _inside(path) if _is_folder(path) else []
        newest = max(one.lstat().st_mtime for one in (path, *inside))
    except FileNotFoundError:
        return False  # it was just removed, so another process is at work
    return time.time() - newest >= SAFE_AGE_SECONDS


def remove(paths: Iterable[Path]) -> int:
    """Removes files and folders; returns their bytes. A folder disappears under its name at once, so that no process
    finds half of it."""
    freed = 0
    for path in paths:
        freed += size_of(path)
        if _is_folder(path):
            doomed = path.with_name(f".{uuid.uuid4().hex}.damaged")
            os.replace(path, doomed)
            shutil.rmtree(doomed)
        else:
            path.unlink(missing_ok=True)
    return freed


def remove_empty(folder: Path) -> None:
    """Removes empty folders under ``folder`` and then itself, if nothing is in them."""
    for inside in _inside(folder):
        if inside.is_dir():
            remove_empty(inside)
    if folder.is_dir() and not any(folder.iterdir()):
        with nobody_writing(folder) as free:
            if free:
                folder.rmdir()


def _named_corpus(pointer: Path, corpora: Path) -> str:
    try:
        said, sealed = read_pointer(pointer)
    except (DamagedFileError, OSError) as error:
        raise UnreadablePointer(f"it is not known which corpus an extraction uses: {error}") from error
    name: str = said["corpus"]
    if not sealed and not (corpora / name).is_dir():  # without a checksum, the name may be another than was written
        raise UnreadablePointer(f"{pointer} names the corpus {name}, which is not there")
    return name


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
