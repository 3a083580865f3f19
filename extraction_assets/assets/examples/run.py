"""Merged feature examples: all chunk tables of one SAE into the results database, in one transaction."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import dagster as dg
import numpy as np

from extraction_assets.assets.examples.checks import MATCH_TABLES, NONE_MISSING, MergeRefused
from extraction_assets.assets.examples.chunk_tables import merge_chunks
from extraction_assets.assets.examples.compared_rows import compare_with_tables
from extraction_assets.assets.examples.corpus_samples import corpus_samples
from extraction_assets.assets.examples.merging import Merged
from extraction_assets.catalog import FEATURE_DIRECTIONS, asset_row
from extraction_assets.dagster_instance.dead_runs import note_host
from extraction_assets.database.connect import write_transaction
from extraction_assets.database.url_text import shown_url
from extraction_assets.database.writing.feature_directions import delete_stale_directions
from extraction_assets.database.writing.feature_examples import ExtractionRow, replace_results
from extraction_assets.engine.corpora.display import display_tokens
from extraction_assets.engine.corpora.document_tokens import special_token_ids
from extraction_assets.engine.statistics.registry import FeatureStatistics
from extraction_assets.execution.failures import as_dagster_failure, failure
from extraction_assets.execution.hub_downloads import hub_downloads
from extraction_assets.execution.links import browser_metadata, links_to_browser
from extraction_assets.execution.pictures import (
    DENSITY_TITLE,
    EXAMPLES_TITLE,
    density_histogram,
    examples_histogram,
    picture_metadata,
)
from extraction_assets.execution.preview import preview
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.planning.tokenization import load_tokenizer
from extraction_assets.planning.weights_fingerprints import weights_fingerprint
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.settings import ExtractionSettings


def run_merge(
    context: dg.AssetExecutionContext,
    settings: ExtractionSettings,
    sae: str,
    chunk_store: ChunkStoreResource,
    results: ResultsResource,
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    """The step of the merge: the strongest examples of every feature of an SAE into the results database."""
    note_host(context.instance, context.run.run_id)
    try:
        with as_dagster_failure(context.retry_number, context.log), hub_downloads(context.log):
            plan = ExtractionPlan(settings, chunk_store.open())
            yield from _merge_into_database(plan, sae, results, context.log)
    except MergeRefused as error:
        yield dg.AssetCheckResult(check_name=error.check, passed=False, description=str(error))
        raise failure(error) from error


def _merge_into_database(
    plan: ExtractionPlan, sae: str, results: ResultsResource, logger: logging.Logger
) -> Iterator[dg.MaterializeResult]:
    started = time.perf_counter()
    samples = slice(0, len(plan.corpus))
    with ThreadPoolExecutor(2, "beside") as beside:  # a second each, if it is the first time of the process
        loading = beside.submit(copy_context().run, load_tokenizer, plan.settings, plan.extraction.checkpoint)
        hashing = beside.submit(copy_context().run, plan.corpus.content_fingerprint, samples)  # kept for the database
        merged = merge_chunks(plan, sae, logger)
        complete = _none_is_missing(plan, merged.statistics)
        tokenizer, _ = loading.result(), hashing.result()
    display, special_ids = display_tokens(tokenizer), tuple(special_token_ids(tokenizer))
    extraction = _extraction_row(plan, sae, len(merged.statistics.sample_count))
    corpus = corpus_samples(plan.corpus)._replace(special_ids=special_ids)
    with results.open() as engine:
        with write_transaction(engine) as connection:
            extraction_id = replace_results(
                connection, extraction, corpus, merged.table, merged.statistics, display, merged.draws, merged.numerics
            )
            delete_stale_directions(connection, plan.settings.name, sae, _directions_fingerprint(plan, sae))
            match = compare_with_tables(connection, extraction_id, merged.expected)
            if not match.passed:
                raise MergeRefused(
                    MATCH_TABLES,
                    f"the loaded rows differ from the chunk tables, nothing was changed: {match.description}",
                )
        metadata = _metadata(merged, time.perf_counter() - started)
        with results.read() as reading, reading.connect() as connection:  # what people look at
            shown = preview(connection, extraction_id, plan.settings.top_positions)
            database = shown_url(reading.url)
        # Before the engine is closed: there are the rows, and SQLite has yet to put its log into the file.
        yield dg.MaterializeResult(
            metadata={
                **browser_metadata(links_to_browser(logger), plan.settings.name, sae),
                "preview": dg.MetadataValue.md(shown),
                **_pictures(merged, plan.settings.top_k_examples),
                **metadata,
                "database": database,
            },
            check_results=[complete, match],
            data_version=dg.DataVersion(extraction.fingerprint),
        )


def _directions_fingerprint(plan: ExtractionPlan, sae: str) -> str:
    return weights_fingerprint(asset_row(FEATURE_DIRECTIONS), plan.settings, plan.extraction, sae)


def _none_is_missing(plan: ExtractionPlan, statistics: FeatureStatistics) -> dg.AssetCheckResult:
    """The claim that every sample was merged; MergeRefused if it is wrong."""
    wanted = plan.settings.evaluation_samples
    if statistics.samples_seen != wanted:
        raise MergeRefused(NONE_MISSING, f"the chunk tables hold {statistics.samples_seen} samples of {wanted}")
    chunks = len(plan.settings.chunks)
    return dg.AssetCheckResult(check_name=NONE_MISSING, passed=True, metadata={"samples": wanted, "chunks": chunks})


def _metadata(merged: Merged, seconds: float) -> dict[str, Any]:
    statistics, examples = merged.statistics, len(merged.table.neuron_index)
    return {
        "features": len(statistics.sample_count),
        "features_firing": int((statistics.sample_count > 0).sum()),
        "examples": examples,
        "samples": statistics.samples_seen,
        "tokens_counted": statistics.tokens_seen,
        "seconds": seconds,
        "samples_per_second": statistics.samples_seen / seconds,
        "examples_per_second": examples / seconds,
        "numerics_records": len(merged.numerics),
        "numerics": dg.MetadataValue.json(merged.numerics),
    }


def _pictures(merged: Merged, top_k: int) -> dict[str, dg.MarkdownMetadataValue]:
    statistics = merged.statistics
    frequencies = statistics.token_count.numpy() / max(1, statistics.tokens_seen)
    examples = np.bincount(merged.table.neuron_index.numpy(), minlength=len(frequencies))
    return {
        "density": picture_metadata(DENSITY_TITLE, density_histogram(frequencies)),
        "examples_per_feature": picture_metadata(EXAMPLES_TITLE, examples_histogram(examples, top_k)),
    }


def _extraction_row(plan: ExtractionPlan, sae: str, latent_dim: int) -> ExtractionRow:
    settings = plan.settings
    return ExtractionRow(
        name=settings.name,
        sae=sae,
        model=settings.language_model.path,
        hook=plan.extraction.saes[sae].hook,
        latent_dim=latent_dim,
        max_length=settings.corpus.max_length,
        top_k_examples=settings.top_k_examples,
        settings=plan.extraction.dump(),
        fingerprint=plan.merge_fingerprint(sae),
    )
