"""Removing an extraction: its files, and the corpus that only it used. ``database.writing.remove`` removes its rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from extraction_assets.settings import check_name
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.recognised_files import (
    Item,
    UnreadablePointer,
    item,
    own_files,
    unnamed_corpora,
)

RESERVED = ("corpora", "dagster")


class StoredFiles(NamedTuple):
    """The files of an extraction, or of one of its SAEs."""

    items: list[Item]
    left: list[Path]
    """Files in its folder that are not of this package: they stay."""
    notes: Sequence[str] = ()
    """What else stays, and why."""


def find_stored_files(store: ChunkStore, name: str, sae: str | None = None) -> StoredFiles:
    """The files of an extraction by its name, declared or not. Raises ValueError for an invalid name."""
    folder = _folder(store, name, sae)
    paths = list(own_files(store, name, sae))
    items, notes = [item("file", path, store) for path in paths], []
    if sae is None:
        try:
            items += [item("corpus", path, store) for path in _only_its_corpora(store, name)]
        except UnreadablePointer as error:
            notes.append(f"all corpora stay: {error}")
    known = set(paths)
    left = [path for path in store.files.files_in(folder) if path not in known]
    return StoredFiles(items, left, notes)


def remove_stored_files(store: ChunkStore, name: str, sae: str | None = None) -> int:
    """Removes it; returns the bytes freed. The corpus's pointer is removed next to last, so that a retry finds it."""
    folder = _folder(store, name, sae)
    try:
        corpora = _only_its_corpora(store, name) if sae is None else []
    except UnreadablePointer:
        corpora = []
    pointer = store.pointer(name)
    freed = store.files.remove(path for path in own_files(store, name, sae) if path != pointer)
    if sae is None and corpora:
        with store.files.nobody_writing(store.corpora) as free:  # no run can begin to use the corpus meanwhile
            if free:
                freed += store.files.remove(set(corpora) & set(_only_its_corpora(store, name)))
    if sae is None:
        freed += store.files.remove([pointer] if store.files.is_file(pointer) else [])
    store.files.remove_empty(folder)
    return freed


def _only_its_corpora(store: ChunkStore, name: str) -> list[Path]:
    """The corpus that only this extraction's pointer names."""
    before = set(unnamed_corpora(store))
    return [path for path in unnamed_corpora(store, without=name) if path not in before]


def _folder(store: ChunkStore, name: str, sae: str | None) -> Path:
    check_name(name, "extraction name")
    if name in RESERVED:
        raise ValueError(f"{name!r} is no extraction: a folder beside the extractions has that name")
    return store.root / name / check_name(sae, "SAE name") if sae else store.root / name
