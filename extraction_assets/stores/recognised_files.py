"""The files in the chunk store. A file that is not recognised here is never removed."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from extraction_assets.catalog import CORPUS, FEATURE_EXPORTS, MERGED_TABLES, asset_row, folders
from extraction_assets.stores.chunk_names import chunk_files
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.fingerprints import LENGTH
from extraction_assets.stores.sealed import DamagedFileError

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
    is_folder: bool = False


class UnreadablePointer(ValueError):
    """A ``corpus.json`` that does not say which corpus it names."""


def item(kind: str, path: Path, store: ChunkStore) -> Item:
    """An item, file or folder, with its size."""
    asset = path.parent.relative_to(store.root).as_posix()
    return Item(kind, asset, path, store.files.size(path), store.files.is_folder(path))


def temporaries(store: ChunkStore, folder: Path) -> list[Path]:
    """Files and folders under a temporary name; in object storage also our uploads that were never completed."""
    named = [path for path in store.files.inside(folder) if _TEMPORARY.fullmatch(path.name)]
    return [*named, *(name for name, file in store.files.uploads(folder).items() if _is_ours(store, folder, file))]


def _is_ours(store: ChunkStore, folder: Path, file: Path) -> bool:
    """Whether a file that was to come into a folder, or into one inside it, is one that this package writes there."""
    if folder == store.corpora:
        return file.parent.parent == folder and _CORPUS.fullmatch(file.parent.name) is not None
    if folder.name == FEATURE_EXPORTS:
        return file.parent != folder
    if file.parent != folder:
        return False
    return any(chunk_files([file])) or file.name in _files_made_once(store, folder)


def _files_made_once(store: ChunkStore, folder: Path) -> tuple[str, ...]:
    if folder.name in (FEATURE_EXPORTS, MERGED_TABLES):
        return ()
    row = asset_row(CORPUS if folder.parent == store.root else folder.name)
    return () if row.partitioned else row.files


def asset_folders(store: ChunkStore, name: str) -> Iterator[Path]:
    """Folders of an extraction in which files are written, of SAEs that are no longer declared too."""
    extraction = store.root / name
    yield extraction
    yield from (extraction / one for one in folders("extraction"))
    for sae in stored_saes(store, name):
        yield from (extraction / sae / one for one in folders("sae"))


def stored_saes(store: ChunkStore, name: str) -> list[str]:
    """Names of the SAEs of an extraction that have files, or whose first file never came to its end."""
    extraction, files, wanted = store.root / name, store.files, folders("sae")
    found = {path.name for path in files.inside(extraction) if any(files.is_folder(path / one) for one in wanted)}
    begun = (file.relative_to(extraction).parts for file in files.uploads(extraction).values())
    return sorted(found | {parts[0] for parts in begun if len(parts) > 2 and parts[1] in wanted})


def stored_extractions(store: ChunkStore) -> list[str]:
    """Names of the extractions that have files under this root, whoever declares them."""
    inside = [path for path in store.files.inside(store.root) if not path.name.startswith(".")]
    return [
        path.name
        for path in inside
        if path != store.corpora
        and (
            store.files.is_file(store.pointer(path.name))
            or any(store.files.is_folder(path / name) for name in folders("extraction"))
            or stored_saes(store, path.name)
        )
    ]


def own_files(store: ChunkStore, name: str, sae: str | None = None) -> Iterator[Path]:
    """Every recognised file of an extraction, or of one of its SAEs."""
    extraction = store.root / name
    inside = [extraction / sae / one for one in folders("sae")] if sae else list(asset_folders(store, name))
    for folder in inside:
        yield from (chunk.path for chunk in chunk_files(store.files.inside(folder)))
        yield from temporaries(store, folder)
        if folder.name == FEATURE_EXPORTS:
            yield from _export_files(store, folder)
            continue
        made_once = (folder / file for file in _files_made_once(store, folder))
        yield from (path for path in made_once if store.files.is_file(path))


def _export_files(store: ChunkStore, folder: Path) -> Iterator[Path]:
    """All files of the exports of an SAE, a folder each: one with a manifest holds nothing else."""
    for inside in store.files.inside(folder):
        if any(store.files.is_file(inside / name) for name in asset_row(FEATURE_EXPORTS).files):
            yield from store.files.files_in(inside)


def unnamed_corpora(store: ChunkStore, without: str | None = None) -> list[Path]:
    """Stored corpora that no extraction's pointer names, the pointer of ``without`` left out.

    Pointers of every extraction under this root count, declared or not. UnreadablePointer if one cannot be read.
    """
    extractions = (path.name for path in store.files.inside(store.root) if not path.name.startswith("."))
    pointers = [store.pointer(name) for name in extractions if name != without]
    named = {_named_corpus(path, store) for path in pointers if store.files.exists(path)}
    corpora = [path for path in store.files.inside(store.corpora) if _CORPUS.fullmatch(path.name)]
    return [path for path in corpora if path.name not in named and store.files.is_folder(path)]


def is_old(store: ChunkStore, path: Path) -> bool:
    """Whether a file, or everything in a folder, was left unchanged for the safe age."""
    try:
        newest = store.files.changed_at(path)
    except FileNotFoundError:
        return False  # it was just removed, so another process is at work
    return time.time() - newest >= SAFE_AGE_SECONDS


def _named_corpus(pointer: Path, store: ChunkStore) -> str:
    try:
        said, sealed = store.read_pointer(pointer)
    except (DamagedFileError, OSError) as error:
        raise UnreadablePointer(f"it is not known which corpus an extraction uses: {error}") from error
    name: str = said["corpus"]
    if not sealed and not store.files.is_folder(store.corpora / name):
        # without a checksum, the name may be another than was written
        raise UnreadablePointer(f"{store.files.address(pointer)} names the corpus {name}, which is not there")
    return name
