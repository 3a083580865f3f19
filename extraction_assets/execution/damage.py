"""Damaged chunk files: finds them and sets them aside, so that they count as missing and are recomputed."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from extraction_assets.catalog import TOP_K_TABLE, ChunkAsset, chunk_assets
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_names import COMPANIONS, chunk_names
from extraction_assets.stores.chunk_store import ChunkStore
from extraction_assets.stores.sealed import DamagedFileError, damaged, named
from extraction_assets.stores.table_companions import look_at_files

terminal = logging.getLogger("extraction_assets.damage")
"""Repeats warnings of a run's log, of damage and of retries: `run NAME`, which shows no Dagster log, prints them on
standard error."""
terminal.addHandler(logging.NullHandler())


_MOST_AT_ONCE = 100
"""Files of one task of a thread: handing over a task takes about as long as looking at a file."""


class DamagedFile(NamedTuple):
    """A chunk file of the current fingerprint with other bytes than were written."""

    key: str
    path: Path
    error: DamagedFileError


def find_damaged(plan: ExtractionPlan, *, whole: bool) -> list[DamagedFile]:
    """Damaged ones among the chunk files of the current fingerprints.

    Looks at headers, footers and sizes; with ``whole`` every byte of tables and statistics is read, and of activations
    and features where they were changed after the tables that were made from them. What is not read here is checked
    whenever it is read.
    """
    files, readers = list(_files(plan, whole=whole)), plan.store.files.readers
    at_once = max(1, min(_MOST_AT_ONCE, len(files) // (2 * readers)))

    def look(first: int) -> list[DamagedFile]:
        looked = (_look(plan.store, *file) for file in files[first : first + at_once])
        return [found for found in looked if found is not None]

    with ThreadPoolExecutor(readers, thread_name_prefix="file checker") as pool:
        return list(chain.from_iterable(pool.map(look, range(0, len(files), at_once))))


def put_aside(error: DamagedFileError, plan: ExtractionPlan) -> str:
    """Sets the file of an error aside if it is known; returns the error's sentence with what was done."""
    aside = None if error.path is None else plan.store.files.set_aside(error.path)
    sentence = named(plan.store.files.shown(str(error)), plan.settings.name)
    return sentence if aside is None else f"{sentence} (it was set aside as {aside})"


def warn(logger: logging.Logger, sentence: str) -> None:
    """Reports damage and its consequence to the run's log and to the terminal."""
    logger.warning("%s", sentence)
    terminal.warning("%s", sentence)


def is_sound(plan: ExtractionPlan, asset: ChunkAsset, chunk: Chunk, sae: str | None, logger: logging.Logger) -> bool:
    """Whether a chunk file of the current fingerprint is there and every byte is as it was written. A damaged one is
    set aside, with a warning."""
    if plan.chunk_state(asset, chunk, sae) != "done":
        return False
    try:
        _check_whole(plan.store, plan.chunk_path(asset, chunk, sae), plan.fingerprint_of(asset, chunk, sae))
    except FileNotFoundError:
        return False
    except DamagedFileError as error:
        warn(logger, put_aside(error, plan))
        return False
    return True


def _files(plan: ExtractionPlan, *, whole: bool) -> Iterator[tuple[str, Path, str, bool]]:
    """(chunk, file, fingerprint, whether to read all of it) of every chunk file that is there."""
    by_asset = [(asset, _there(plan, asset, sae)) for asset, sae in chunk_assets(plan.settings.saes)]
    changed = plan.store.changed_at
    for key in plan.settings.chunk_keys:
        stored = [(asset, *there[key]) for asset, there in by_asset if key in there]
        if not whole:
            yield from ((key, path, fingerprint, False) for _, path, fingerprint in stored)
            continue
        tables = [changed(path) for asset, path, _ in stored if asset == TOP_K_TABLE and plan.store.files.is_file(path)]
        for asset, path, fingerprint in stored:
            later = asset == TOP_K_TABLE or not tables or changed(path) > max(tables)
            yield key, path, fingerprint, later


def _there(plan: ExtractionPlan, asset: ChunkAsset, sae: str | None) -> dict[str, tuple[Path, str]]:
    """Chunk -> (file, fingerprint) where something is in the place of its file: a folder, a named pipe or a circle of
    links too."""
    store, name = plan.store, plan.settings.name
    folder = store.asset_folder(name, asset, sae)
    names = store.files.names(folder)
    found = {}
    for key, fingerprint in plan.fingerprints(asset, sae).items() if names else ():
        there = [one for one in chunk_names(asset, key, fingerprint) if one in names]
        if there:
            found[key] = folder / next(filter(names.get, there), there[0]), fingerprint
    return found


def _look(store: ChunkStore, key: str, path: Path, fingerprint: str, whole: bool) -> DamagedFile | None:
    try:
        if whole:
            _check_whole(store, path, fingerprint)
        else:
            look_at_files(path, fingerprint, store.look_at)
    except DamagedFileError as error:
        return DamagedFile(key, path, error)
    except FileNotFoundError:  # it has just gone: missing, not damaged
        return DamagedFile(key, path, damaged(path, "it is a link to nothing")) if path.is_symlink() else None
    return None


def _check_whole(store: ChunkStore, path: Path, fingerprint: str) -> None:
    from extraction_assets.stores.chunk_files import check_files  # tensors, which are not needed here

    with store.reading(path, *(COMPANIONS if path.suffix == ".parquet" else ())) as copy:
        check_files(copy, fingerprint)
