"""Decides what is read from stored files of a chunk instead of computed, and reads it.

The decision is made before the first chunk, from the records in the files, and again when a chunk's turn comes. Every
byte is checked when a file is read; a damaged file is set aside, with a warning, and its contents are recomputed.
"""

import logging
from collections.abc import Collection
from pathlib import Path

from torch import Tensor

from extraction_assets.catalog import MODEL_ACTIVATIONS, SAE_FEATURES, TOP_K_TABLE
from extraction_assets.engine.shapes import FeatureRows
from extraction_assets.execution.damage import put_aside, warn
from extraction_assets.execution.keys import Target
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_files import read_activations, read_features
from extraction_assets.stores.chunk_record import Record
from extraction_assets.stores.sealed import DamagedFileError, damaged


def activations_suffice(plan: ExtractionPlan, chunk: Chunk, targets: Collection[Target]) -> bool:
    """Whether hook outputs of a chunk are read: they are stored, and not among the ``targets`` to be computed."""
    if any(target.asset == MODEL_ACTIVATIONS for target in targets):
        return False
    return plan.chunk_state(MODEL_ACTIVATIONS, chunk) == "done"


def features_suffice(
    plan: ExtractionPlan, chunk: Chunk, sae: str, targets: Collection[Target], logger: logging.Logger
) -> bool:
    """Whether an SAE's table of a chunk is selected from stored features.

    They suffice where nothing else of the SAE is to be computed, all of their tokens are finite (they stand at all
    non-padding positions: one with a NaN that did not count when they were stored may count now, and `> 0` would not
    see it), and outlier norms, which are those of activations, are not excluded.
    """
    if {target.asset for target in targets if target.sae == sae} != {TOP_K_TABLE}:
        return False
    if plan.settings.corpus.exclude_outlier_norms is not None or plan.chunk_state(SAE_FEATURES, chunk, sae) != "done":
        return False
    path = plan.chunk_path(SAE_FEATURES, chunk, sae)
    try:
        record = plan.store.look_at(path, plan.features_fingerprint(chunk, sae))
        _expect_fields(path, record, ("all_finite",))
    except FileNotFoundError:
        return False
    except DamagedFileError as error:
        _set_aside("SAE features", error, plan, chunk, logger)
        return False
    return bool(record["all_finite"])


def read_stored_features(
    plan: ExtractionPlan, chunk: Chunk, sae: str, latent_dim: int, logger: logging.Logger
) -> tuple[FeatureRows, Record] | None:
    """Features of a chunk that suffice, and their record; None if the file is damaged or was removed meanwhile."""
    path = plan.chunk_path(SAE_FEATURES, chunk, sae)
    try:
        with plan.store.reading(path) as copy:
            features, record = read_features(copy, plan.features_fingerprint(chunk, sae))
        _expect_shape(path, list(features[3:]), [*_chunk_shape(plan, chunk), latent_dim])
        _expect_fields(path, record, ("variance_explained", "numerics"))
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        _set_aside("SAE features", error, plan, chunk, logger)
        return None
    return features, record


def read_stored_activations(
    plan: ExtractionPlan, chunk: Chunk, hooks: list[str], logger: logging.Logger
) -> tuple[dict[str, Tensor], Record] | None:
    """Outputs {hook: [n, T, D]} of a chunk that suffice, and their record; None if the file is damaged or was removed
    meanwhile."""
    path = plan.chunk_path(MODEL_ACTIVATIONS, chunk)
    try:
        with plan.store.reading(path) as copy:
            stored, record = read_activations(copy, plan.activations_fingerprint(chunk))
        missing = [hook for hook in hooks if hook not in stored]
        if missing:
            raise damaged(path, f"it lacks the outputs of hook {missing[0]!r}")
        for hook in hooks:
            _expect_shape(path, list(stored[hook].shape[:2]), _chunk_shape(plan, chunk))
        _expect_fields(path, record, ("numerics",))
    except FileNotFoundError:
        return None
    except DamagedFileError as error:
        warn(
            logger,
            f"model activations of chunk {chunk.key} are computed, not read: {put_aside(error, plan)}",
        )
        return None
    return {hook: stored[hook] for hook in hooks}, record


def _set_aside(what: str, error: DamagedFileError, plan: ExtractionPlan, chunk: Chunk, logger: logging.Logger) -> None:
    warn(logger, f"{what} of chunk {chunk.key} are computed, not read: {put_aside(error, plan)}")


def _chunk_shape(plan: ExtractionPlan, chunk: Chunk) -> list[int]:
    """[n, T]"""
    return list(plan.corpus.arrays.token_ids[chunk.rows].shape)


def _expect_shape(path: Path, found: list[int], expected: list[int]) -> None:
    if found != expected:
        raise damaged(path, f"it holds {found}, but its chunk is {expected}")


def _expect_fields(path: Path, record: Record, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in record:
            raise damaged(path, f"its record has no {name!r}")
