"""What each feature writes: computed from the checkpoints, and loaded into the results database in one transaction."""

import datetime as dt
import time
from typing import Any

import dagster as dg

from extraction_assets.assets.directions.compute import Directions, compute_directions
from extraction_assets.catalog import FEATURE_DIRECTIONS, asset_row
from extraction_assets.dagster_instance.dead_runs import note_host
from extraction_assets.database.connect import write_transaction
from extraction_assets.database.url_text import shown_url
from extraction_assets.database.writing.feature_directions import DirectionsRow, Loaded, replace_directions
from extraction_assets.engine.corpora.display import display_tokens
from extraction_assets.engine.saes.resolved import resolve_extraction
from extraction_assets.execution.failures import as_dagster_failure
from extraction_assets.execution.hub_downloads import hub_downloads
from extraction_assets.planning.tokenization import load_tokenizer
from extraction_assets.planning.weights_fingerprints import weights_fingerprint
from extraction_assets.resources import GpuResource, ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.content_hashes import read_files_on_trust


def run_directions(
    context: dg.AssetExecutionContext,
    settings: ExtractionSettings,
    sae: str,
    gpu: GpuResource,
    results: ResultsResource,
) -> dg.MaterializeResult:
    """The step of an SAE's directions. No corpus and no chunk has to be there."""
    note_host(context.instance, context.run.run_id)
    started = time.perf_counter()
    with as_dagster_failure(context.retry_number, context.log), hub_downloads(context.log):
        extraction = resolve_extraction(settings)
        fingerprint = weights_fingerprint(asset_row(FEATURE_DIRECTIONS), settings, extraction, sae)
        display = display_tokens(load_tokenizer(settings, extraction.checkpoint))
        with gpu.use_idle_device(context.log) as device:
            found = compute_directions(extraction, sae, device, context.log)
        read_files_on_trust()
        row = DirectionsRow(settings.name, sae, fingerprint, found.norm, found.undefined, dt.datetime.now(dt.UTC))
        with results.open() as engine, write_transaction(engine) as connection:
            loaded = Loaded(found.lens, found.nearest, list(extraction.saes), found.latent_dim)
            replace_directions(connection, row, loaded, display)
            database = shown_url(engine.url)
    metadata: dict[str, Any] = {"device": str(device), "seconds": time.perf_counter() - started, "database": database}
    return dg.MaterializeResult(metadata={**_metadata(found), **metadata}, data_version=dg.DataVersion(fingerprint))


def _metadata(found: Directions) -> dict[str, Any]:
    if found.lens is None:
        return {"features": found.latent_dim, "logit_lens": f"not defined: {found.undefined}"}
    zeros = int((~found.lens.is_defined).sum())
    return {"features": found.latent_dim, "logit_lens": found.norm, "features_without_direction": zeros}
