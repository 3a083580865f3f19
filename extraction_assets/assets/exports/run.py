"""The step of an export: a folder beside the SAE's other files, replaced once the new one is whole."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from extraction_assets.catalog import FEATURE_EXPORTS
from extraction_assets.dagster_instance.dead_runs import note_host
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.execution.failures import as_dagster_failure
from extraction_assets.execution.progress import progress
from extraction_assets.exports.checkpoints_and_files import Declared
from extraction_assets.exports.folders import ExportFolder, LocalFolder, stored_folder
from extraction_assets.exports.formats import chosen_options
from extraction_assets.exports.output import MANIFEST, Progress, holds, is_finished
from extraction_assets.exports.source import ExportSource
from extraction_assets.exports.write_export import export, manifest_of
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import ChunkStore


def run_export(
    context: dg.AssetExecutionContext,
    settings: ExtractionSettings,
    sae: str,
    export_format: str,
    chunk_store: ChunkStoreResource,
    results: ResultsResource,
) -> dg.MaterializeResult:
    """The step of an export. One that was killed goes on with the files that are missing."""
    store = chunk_store.open()
    folder = export_folder(store, settings.name, sae, export_format)
    note_host(context.instance, context.run.run_id)
    with (
        as_dagster_failure(context.retry_number, context.log),
        results.open() as engine,
        engine.connect() as connection,
    ):
        extraction = find_extraction(connection, settings.name, sae)
        source = ExportSource(connection, extraction, declared=Declared(settings, store))
        total = len(source.neuron_indices)
        with progress(f"{export_format} of {source.title}", total, "features", context.log) as shown:
            written = _replace(source, export_format, stored_folder(store, folder), shown)
    sizes = stored_folder(store, folder).sizes()
    metadata: Mapping[str, Any] = {
        "path": dg.MetadataValue.path(store.files.address(folder)),
        "features": total,
        "files": len(sizes),
        "files_written": written,
        "bytes": sum(sizes.values()),
    }
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(extraction.fingerprint))


def export_folder(store: ChunkStore, extraction: str, sae: str, export_format: str) -> Path:
    """Where the asset of a format lies."""
    return store.asset_folder(extraction, FEATURE_EXPORTS, sae) / export_format


def _replace(source: ExportSource, export_format: str, there: ExportFolder, shown: Progress) -> int:
    """Writes an export beside the one that is there, and puts it in its place; the files that were written."""
    made_from = manifest_of(source, export_format, chosen_options(export_format, {}))
    if is_finished(there, made_from):
        return export(source, export_format, there, shown).written  # what somebody has removed is written again
    if not isinstance(there, LocalFolder):
        return _replace_at_url(source, export_format, there, made_from, shown)
    folder = there.path
    begun, before = (folder.with_name(f".{folder.name}.{word}") for word in ("begun", "before"))
    if begun.is_dir() and not holds(LocalFolder(begun), made_from):
        shutil.rmtree(begun)
    written = export(source, export_format, LocalFolder(begun), shown).written
    shutil.rmtree(before, ignore_errors=True)
    if folder.is_dir():
        os.rename(folder, before)
    os.rename(begun, folder)
    shutil.rmtree(before, ignore_errors=True)
    return written


def _replace_at_url(
    source: ExportSource, export_format: str, there: ExportFolder, made_from: dict[str, Any], shown: Progress
) -> int:
    """Object storage gives no folder another name: another export that is there is removed first, its manifest before
    all, so that what is left of it is taken for no export."""
    if not holds(there, made_from):
        for name in sorted(there.sizes(), key=lambda name: name.rpartition("/")[2] != MANIFEST):
            there.remove(name)
    return export(source, export_format, there, shown).written
