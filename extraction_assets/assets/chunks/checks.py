"""The checks of chunks: what they claim, and how those of stored chunks are reported without recomputing."""

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from extraction_assets.catalog import TOP_K_TABLE
from extraction_assets.engine.preflight.verdicts import NOT_APPLICABLE
from extraction_assets.execution.damage import is_sound
from extraction_assets.execution.keys import chunk_partitions, sae_key
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk, ExtractionSettings
from extraction_assets.stores.chunk_record import Record, checks_of

MATCHES_LEGACY = "vectorized_matches_legacy"
RECONSTRUCTS = "sae_reconstructs_activations"
CHUNK_CHECKS = {
    MATCHES_LEGACY: "The sequential legacy loop, run again on a seeded part of the chunk, finds the same examples.",
    RECONSTRUCTS: "The SAE explains enough of the activations' variance: it is read at the right layer and hook.",
}
"""If one fails, the chunk is not stored. The merge requires all of them."""

IS_SPARSE = "sae_is_sparse"
BOS_DOES_NOT_DOMINATE = "bos_does_not_dominate"
CHUNK_WARNINGS = {
    IS_SPARSE: "On average some features fire on a token, and no more than maximum_l0 of the SAE.",
    BOS_DOES_NOT_DOMINATE: "The strongest tokens of the chunk's examples are not mostly first or special ones.",
}
"""If one fails, the chunk is still stored. Chunks of earlier versions have no record of them."""


ChunkEvent = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[None]
"""What a run of chunks reports to Dagster."""


def chunk_check_specs(settings: ExtractionSettings) -> list[dg.AssetCheckSpec]:
    """The checks of every SAE's top-k table, chunk by chunk."""
    partitions = chunk_partitions(settings)
    with warnings.catch_warnings():
        # Dagster calls partitions of checks a preview. Without them the last chunk's result hides a failed one.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                name,
                asset=sae_key(settings, sae, TOP_K_TABLE),
                description=description,
                blocking=name in CHUNK_CHECKS,
                partitions_def=partitions,
            )
            for sae in settings.saes
            for name, description in {**CHUNK_CHECKS, **CHUNK_WARNINGS}.items()
        ]


def chunk_evaluation(
    table: dg.AssetKey,
    name: str,
    key: str,
    passed: bool,
    metadata: Mapping[str, Any] | None = None,
    description: str | None = None,
) -> dg.AssetCheckEvaluation:
    """The outcome of a check for chunk ``key`` of a top-k table."""
    blocking = name in CHUNK_CHECKS
    return dg.AssetCheckEvaluation(
        asset_key=table,
        check_name=name,
        passed=passed,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        description=description,
        blocking=blocking,
        partition=key,
    )


def recorded_checks(
    plan: ExtractionPlan, checks: Collection[dg.AssetCheckKey], chunks: Sequence[Chunk], logger: logging.Logger
) -> Iterator[dg.AssetCheckEvaluation]:
    """The outcomes of ``checks`` that the stored tables of some chunks record; other checks are skipped.

    A chunk is checked while it is computed, and a chunk whose check fails is not stored, so this is what the merge
    reads. A damaged one is set aside, with a warning. Raises dg.Failure if no chunk of a check's table is stored.
    """
    records: dict[dg.AssetKey, list[tuple[str, Record]]] = {}
    for check in sorted(checks, key=lambda check: check.to_user_string()):
        if check.asset_key not in records:
            records[check.asset_key] = list(_stored_records(plan, check, chunks, logger))
        stored = records[check.asset_key]
        found = [replayed(check, key, record) for key, record in stored if check.name in checks_of(record)]
        if not stored or (not found and check.name in CHUNK_CHECKS):
            raise dg.Failure(
                f"no chunk of {check.asset_key.to_user_string()} is stored, so there is nothing to check: "
                "chunks are checked while they are materialized",
                allow_retries=False,
            )
        logger.info("%s: %d of %d chunks are stored and carry it", check.name, len(found), len(chunks))
        yield from found


def replayed(check: dg.AssetCheckKey, key: str, record: Record) -> dg.AssetCheckEvaluation:
    """A check of chunk ``key`` as its table's record reports it."""
    explained = record.get("variance_explained")
    has_score = isinstance(explained, float)
    with_score = f", with {explained:.3f} of the variance explained" if has_score else ""
    if check.name == RECONSTRUCTS and "variance_explained" in record and explained is None:
        with_score = f" ({NOT_APPLICABLE})"
    numbers = {"variance_explained": explained} if check.name == RECONSTRUCTS and has_score else {}
    return chunk_evaluation(
        check.asset_key,
        check.name,
        key,
        checks_of(record)[check.name],
        {**numbers, "recorded_again": True},
        f"as found when the chunk was computed{with_score}; nothing was computed again",
    )


def _stored_records(
    plan: ExtractionPlan, check: dg.AssetCheckKey, chunks: Sequence[Chunk], logger: logging.Logger
) -> Iterator[tuple[str, Record]]:
    """The chunks that are stored, each with the record of its table, after the whole file is verified."""
    sae = next(name for name in plan.settings.saes if check.asset_key == sae_key(plan.settings, name, TOP_K_TABLE))
    for chunk in chunks:
        if is_sound(plan, TOP_K_TABLE, chunk, sae, logger):
            yield chunk.key, plan.store.record(plan.chunk_path(TOP_K_TABLE, chunk, sae))
