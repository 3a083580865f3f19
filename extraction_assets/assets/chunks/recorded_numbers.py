"""The numbers of a chunk that is recorded again: those of the event that recorded the same file, so that plots stay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from extraction_assets.assets.chunks.finish import statistics_metadata
from extraction_assets.catalog import TOP_K_TABLE
from extraction_assets.execution.keys import Target
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.settings import Chunk
from extraction_assets.stores.chunk_files import read_statistics
from extraction_assets.stores.chunk_names import STATISTICS_FILE

_LATEST_EVENTS = 100
"""How many events of a chunk are read, from the latest on."""


def replayed_metadata(
    plan: ExtractionPlan, target: Target, chunk: Chunk, instance: dg.DagsterInstance
) -> dict[str, dg.MetadataValue | Any]:
    """Metadata of a chunk that exists already; its file has been verified.

    Times, rates and memory come from the run that computed it, as Dagster's history has them. Without that history
    (another Dagster home) only the numbers in the file remain.
    """
    path = plan.chunk_path(target.asset, chunk, target.sae)
    fingerprint = plan.fingerprint_of(target.asset, chunk, target.sae)
    return {
        **_numbers_in_file(plan, target, chunk, path),
        **_numbers_in_history(instance, target.key, chunk.key, fingerprint),
        "bytes": plan.store.files.length(path),
        "path": dg.MetadataValue.path(plan.store.files.address(path)),
        "fingerprint": fingerprint,
        "recorded_again": True,
    }


def _numbers_in_history(
    instance: dg.DagsterInstance, asset: dg.AssetKey, key: str, fingerprint: str
) -> Mapping[str, dg.MetadataValue]:
    """Metadata of the latest event of this chunk with the same fingerprint and with numbers."""
    filters = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[key])
    for record in instance.fetch_materializations(filters, limit=_LATEST_EVENTS).records:
        event = record.asset_materialization
        if event is None or "samples" not in event.metadata:  # earlier versions recorded again without numbers
            continue
        if getattr(event.metadata.get("fingerprint"), "value", None) == fingerprint:
            return event.metadata
    return {}


def _numbers_in_file(plan: ExtractionPlan, target: Target, chunk: Chunk, path: Path) -> dict[str, Any]:
    record, samples = plan.store.record(path), plan.samples(chunk)
    numbers = {
        "samples": len(samples.token_ids),
        "tokens": int(samples.attention_mask.sum()),
        "numerics": dg.MetadataValue.json(record.get("numerics") or {}),
    }
    if isinstance(record.get("variance_explained"), float):
        numbers["variance_explained"] = record["variance_explained"]
    if target.asset == TOP_K_TABLE:
        with plan.store.reading(path, STATISTICS_FILE) as copy:
            statistics, examples = read_statistics(copy)
        numbers |= {**statistics_metadata(statistics), "examples": examples}
    return numbers
