"""The step of the relations: counts them, and replaces their rows in the results database; what else is made once a
merge is committed, the index of texts, too."""

import logging
import tempfile
import time
from collections import Counter
from functools import partial
from typing import Any

import dagster as dg
import numpy as np
import sqlalchemy as sa

from extraction_assets.assets.relations.compute import CorpusCounts, compute_relations
from extraction_assets.assets.relations.ranges import RangeRows, range_rules
from extraction_assets.assets.relations.source import Source, find_source
from extraction_assets.catalog import FEATURE_EXAMPLES, FEATURE_RELATIONS, SAE_FEATURES
from extraction_assets.dagster_instance.dead_runs import note_host
from extraction_assets.database.connect import write_transaction
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.tables import features
from extraction_assets.database.writing.feature_relations import RelationsRow, delete_relations, replace_relations
from extraction_assets.database.writing.text_index import index_texts
from extraction_assets.engine.corpora.display import display_tokens
from extraction_assets.engine.relations.found import Relations
from extraction_assets.execution.damage import put_aside, warn
from extraction_assets.execution.failures import as_dagster_failure, failure
from extraction_assets.execution.hub_downloads import hub_downloads
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.planning.stored_relations import NothingToCount, scope_text, stored_relations
from extraction_assets.planning.tokenization import load_tokenizer
from extraction_assets.resources import ChunkStoreResource, GpuResource, ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.sealed import DamagedFileError


class RelationsRefused(ValueError):
    """Relations cannot be counted; nothing in the database was changed."""


def run_relations(
    context: dg.AssetExecutionContext,
    settings: ExtractionSettings,
    sae: str,
    gpu: GpuResource,
    chunk_store: ChunkStoreResource,
    results: ResultsResource,
) -> dg.MaterializeResult:
    """The step of the relations of an SAE. Without firings to count from, it says so and removes earlier rows."""
    note_host(context.instance, context.run.run_id)
    try:
        with as_dagster_failure(context.retry_number, context.log), hub_downloads(context.log):
            plan = ExtractionPlan(settings, chunk_store.open())
            with results.open() as engine:
                metadata = _bring_up_to_date(plan, sae, engine, gpu, context.log)
    except RelationsRefused as error:
        raise failure(error) from error
    version = dg.DataVersion(plan.fingerprint_of(FEATURE_RELATIONS, None, sae))
    return dg.MaterializeResult(metadata=metadata, data_version=version)


def _bring_up_to_date(
    plan: ExtractionPlan, sae: str, engine: sa.Engine, gpu: GpuResource, logger: logging.Logger
) -> dict[str, Any]:
    """Metadata of the materialization."""
    started = time.perf_counter()
    with engine.connect() as connection:
        whole = _counts_of_merge(connection, plan, sae)
        stored = stored_relations(connection, plan, sae)
    index_texts(engine)
    source = find_source(plan, sae)
    if isinstance(source, NothingToCount):
        if stored is not None and stored.stale is None:
            return {"unchanged": f"counted before, {scope_text(stored)}; now {source.reason}"}
        logger.warning("relations are not computed: %s", source.reason)
        with write_transaction(engine) as connection:
            delete_relations(connection, plan.settings.name, sae)
        return {"not_computed": source.reason}
    display = display_tokens(load_tokenizer(plan.settings, plan.extraction.checkpoint))
    with tempfile.TemporaryFile() as file:
        ranges = RangeRows(file, plan, display, logger)
        source, found = _compute(plan, sae, source, whole, gpu, ranges, logger)
        row = _row(plan, sae, source)
        with write_transaction(engine) as connection:
            _counts_of_merge(connection, plan, sae)  # another merge may have been committed meanwhile
            replace_relations(connection, plan.settings.name, sae, row, found, display, ranges.tables())
    metadata = _metadata(plan, row, found, time.perf_counter() - started)
    if range_rules(plan) is not None:
        metadata["further_intervals"] = ranges.count if source.scope == "corpus" else "not computed: of samples alone"
    return metadata


def _compute(
    plan: ExtractionPlan,
    sae: str,
    source: Source,
    whole: CorpusCounts,
    gpu: GpuResource,
    ranges: RangeRows,
    logger: logging.Logger,
) -> tuple[Source, Relations]:
    """A damaged file of SAE features is set aside, and the sampled ones are used; a damaged table has to be made
    again."""
    chunks, rules = len(plan.settings.chunks), range_rules(plan)
    counted = partial(compute_relations, chunks=chunks, whole=whole, gpu=gpu, logger=logger)
    try:
        if rules is None or source.scope != "corpus":
            return source, counted(source)
        return source, counted(source, finally_do=partial(ranges.write, rules=rules))
    except DamagedFileError as error:
        sentence = put_aside(error, plan)
        other = find_source(plan, sae)
        if source.scope != "corpus" or isinstance(other, NothingToCount):
            raise RelationsRefused(sentence) from error
    warn(logger, f"relations are counted from sampled features, not from all {SAE_FEATURES}: {sentence}")
    return other, counted(other)


def _counts_of_merge(connection: sa.Connection, plan: ExtractionPlan, sae: str) -> CorpusCounts:
    """Raises RelationsRefused if the merge in the database is not that of the current chunks; UnknownResultError if
    nothing is merged."""
    name = plan.settings.name
    extraction = find_extraction(connection, name, sae)
    if extraction.fingerprint != plan.merge_fingerprint(sae):
        raise RelationsRefused(
            f"the merged examples of {name}/{sae} are of other chunks than the current ones: materialize "
            f"{name}/{sae}/{FEATURE_EXAMPLES} first"
        )
    ordered = sa.select(features.c.token_count).order_by(features.c.neuron_index)
    counts = connection.scalars(ordered.where(features.c.extraction_id == extraction.id)).all()
    return CorpusCounts(np.array(counts, dtype=np.int64), extraction.token_count)


def _row(plan: ExtractionPlan, sae: str, source: Source) -> RelationsRow:
    return RelationsRow(
        fingerprint=plan.fingerprint_of(FEATURE_RELATIONS, None, sae),
        merge_fingerprint=plan.merge_fingerprint(sae),
        scope=source.scope,
        sample_one_in=1 if source.scope == "corpus" else plan.settings.sample_one_in,
    )


def _metadata(plan: ExtractionPlan, row: RelationsRow, found: Relations, seconds: float) -> dict[str, Any]:
    flags = Counter(flag.name for flag in found.flags)
    metadata = {
        "scope": scope_text(row),
        "samples": found.totals.samples,
        "tokens_counted": found.totals.tokens,
        "firings": int(found.totals.firings.sum()),
        "top_tokens": len(found.tokens["firing"].rank),
        "next_tokens": len(found.tokens["next"].rank),
        "neighbours": len(found.neighbours.rank),
        **{f"flagged_{name}": count for name, count in sorted(flags.items())},
        "seconds": seconds,
    }
    if plan.settings.corpus.exclude_outlier_norms is not None:
        metadata["note"] = "shares of tokens and PMI count outliers among the tokens on which a feature does not fire"
    return metadata
