"""Damaged chunk files: found, set aside so that they are missing, and then made again."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from extraction_assets.catalog import MODEL_ACTIVATIONS, SAE_FEATURES, TOP_K_TABLE, ChunkAsset, chunk_assets
from extraction_assets.engine.shapes import FeatureRows
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.stores.chunk_files import check_files, look_at_files, read_activations, read_features
from extraction_assets.stores.chunk_record import Record
from extraction_assets.stores.sealed import DamagedFileError, damaged, named, set_aside

_READERS = 4

terminal = logging.getLogger("extraction_assets.damage")
"""What a run's log is told is told here too: `run NAME`, where Dagster's log is silent, shows it on standard error."""
terminal.addHandler(logging.NullHandler())


class DamagedFile(NamedTuple):
    """A chunk file of the current fingerprint that is not as it was written."""

    key: str
    path: Path
    error: DamagedFileError


def find_damaged(plan: ExtractionPlan, *, whole: bool) -> list[DamagedFile]:
    """Damaged ones among the chunk files of the current fingerprints.

    Looks at headers, footers and sizes; with ``whole`` every byte of tables and statistics is read, and of activations
    and features where they were changed after the tables that were made from them. What is not read here is checked
    whenever it is read.
    """
    files = list(_files(plan, whole=whole))
    with ThreadPoolExecutor(_READERS, thread_name_prefix="file checker") as pool:
        return [found for found in pool.map(lambda one: _look(*one), files) if found is not None]


def put_aside(error: DamagedFileError, extraction: str) -> str:
    """Sets the file of an error aside where it is known; the error's sentence with what was done."""
    aside = None if error.path is None else set_aside(error.path)
    sentence = named(str(error), extraction)
    return sentence if aside is None else f"{sentence} (it was set aside as {aside.name})"


def warn(logger: logging.Logger, sentence: str) -> None:
    """Says to the run's own log and to the terminal what is damaged, and what comes of it."""
    logger.warning("%s", sentence)
    terminal.warning("%s", sentence)


def is_sound(plan: ExtractionPlan, asset: ChunkAsset, key: str, sae: str | None, logger: logging.Logger) -> bool:
    """Whether a chunk file of the current fingerprint is there and every byte is as it was written. A damaged one is
    set aside, with a warning."""
    if plan.chunk_state(asset, key, sae) != "done":
        return False
    try:
        check_files(plan.chunk_path(asset, key, sae), plan.chunk_fingerprint(asset, key, sae))
    except FileNotFoundError:
        return False
    except DamagedFileError as error:
        warn(logger, put_aside(error, plan.settings.name))
        return False
    return True


def usable_features(
    plan: ExtractionPlan, key: str, sae: str, latent_dim: int, logger: logging.Logger
) -> tuple[FeatureRows, Record] | None:
    """Stored features of a chunk and their record; None where they have to be computed: there are none, not all are
    finite, or they are damaged, which is said and sets them aside."""
    if plan.chunk_state(SAE_FEATURES, key, sae) != "done":
        return None
    path = plan.chunk_path(SAE_FEATURES, key, sae)
    try:
        features, record = read_features(path, plan.features_fingerprint(key, sae))
        _expect_shape(path, list(features[3:]), [*_chunk_shape(plan, key), latent_dim])
        _expect_fields(path, record, ("all_finite", "variance_explained", "numerics"))
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        warn(logger, f"SAE features of chunk {key} are computed, not read: {put_aside(error, plan.settings.name)}")
        return None
    return (features, record) if record["all_finite"] else None


def usable_activations(
    plan: ExtractionPlan, key: str, hooks: list[str], logger: logging.Logger
) -> tuple[dict[str, Tensor], Record] | None:
    """Stored outputs {hook: [n, T, D]} of a chunk and their record; None where they have to be computed: there are
    none, or they are damaged, which is said and sets them aside."""
    if plan.chunk_state(MODEL_ACTIVATIONS, key) != "done":
        return None
    path = plan.chunk_path(MODEL_ACTIVATIONS, key)
    try:
        stored, record = read_activations(path, plan.activations_fingerprint(key))
        missing = [hook for hook in hooks if hook not in stored]
        if missing:
            raise damaged(path, f"it lacks the outputs of hook {missing[0]!r}")
        for hook in hooks:
            _expect_shape(path, list(stored[hook].shape[:2]), _chunk_shape(plan, key))
        _expect_fields(path, record, ("numerics",))
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        warn(logger, f"model activations of chunk {key} are computed, not read: {put_aside(error, plan.settings.name)}")
        return None
    return {hook: stored[hook] for hook in hooks}, record


def _files(plan: ExtractionPlan, *, whole: bool) -> Iterator[tuple[str, Path, str, bool]]:
    """(chunk, file, fingerprint, whether to read all of it) of every chunk file that is there."""
    name = plan.settings.name
    for key in plan.settings.chunk_keys:
        stored = []
        for asset, sae in chunk_assets(plan.settings.saes):
            fingerprint = plan.chunk_fingerprint(asset, key, sae)
            path = plan.store.chunk_path(name, asset, sae, key, fingerprint)
            if os.path.lexists(path):  # a folder, a named pipe or a circle of links too
                stored.append((asset, path, fingerprint))
        tables = [_changed(path) for asset, path, _ in stored if asset == TOP_K_TABLE and path.is_file()]
        for asset, path, fingerprint in stored:
            later = asset == TOP_K_TABLE or not tables or _changed(path) > max(tables)
            yield key, path, fingerprint, whole and later


def _look(key: str, path: Path, fingerprint: str, whole: bool) -> DamagedFile | None:
    try:
        (check_files if whole else look_at_files)(path, fingerprint)
    except DamagedFileError as error:
        return DamagedFile(key, path, error)
    except FileNotFoundError:  # it has just gone: missing, not damaged
        return DamagedFile(key, path, damaged(path, "it is a link to nothing")) if path.is_symlink() else None
    return None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone meanwhile, or a circle of links
        return 0.0


def _chunk_shape(plan: ExtractionPlan, key: str) -> list[int]:
    """[n, T]"""
    return list(plan.corpus.arrays.token_ids[plan.settings.chunk_rows(key)].shape)


def _expect_shape(path: Path, found: list[int], expected: list[int]) -> None:
    if found != expected:
        raise damaged(path, f"it holds {found}, but its chunk is {expected}")


def _expect_fields(path: Path, record: Record, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in record:
            raise damaged(path, f"its record has no {name!r}")
