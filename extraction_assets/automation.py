"""Starts runs of an extraction automatically: its schedule, the merge that follows, and the recovery of runs with a
dead process."""

from collections.abc import Iterator

import dagster as dg

from extraction_assets.assets.chunks.pending import Pending, range_tags, ranges
from extraction_assets.dagster_instance.dead_runs import (
    alive_runs,
    fail_dead_runs,
    run_to_be_retried,
    unfinished_backfill,
    works_on,
)
from extraction_assets.dagster_instance.private_names import UnresolvedAssetJobDefinition
from extraction_assets.execution.keys import REUSE_TAG, chunk_targets, corpus_key
from extraction_assets.planning.plan import CorpusNotReady, ExtractionPlan
from extraction_assets.resources import ChunkStoreResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.sealed import DamagedFileError

RECOVERY_SECONDS = 30
AUTOMATION_SECONDS = 10


def build_automation(settings: ExtractionSettings) -> dg.Definitions:
    """Schedule (where one is declared) and sensors of an extraction."""
    schedules = [build_schedule(settings)] if settings.schedule else []
    return dg.Definitions(
        jobs=[build_job(settings)],
        schedules=schedules,
        sensors=[build_automation_sensor(settings), build_recovery(settings)],
    )


def build_job(settings: ExtractionSettings) -> UnresolvedAssetJobDefinition:
    """The chunk assets of an extraction under one name, to launch over any partitions."""
    return dg.define_asset_job(
        f"{settings.name}_extract",
        selection=dg.AssetSelection.assets(*(target.key for target in chunk_targets(settings))),
        description=f"One GPU pass over chunks of {settings.name}: model activations, SAE features and top-k tables.",
    )


def build_schedule(settings: ExtractionSettings) -> dg.ScheduleDefinition:
    """Requests the missing chunks, as ranges. Off until a user switches it on."""

    @dg.schedule(
        name=f"{settings.name}_missing_chunks",
        cron_schedule=str(settings.schedule),
        target=dg.AssetSelection.assets(corpus_key(settings), *(target.key for target in chunk_targets(settings))),
        description=f"Computes the missing and stale chunks of {settings.name}; the sensor "
        f"{_automation_name(settings)} has them merged.",
    )
    def missing_chunks(
        context: dg.ScheduleEvaluationContext, chunk_store: ChunkStoreResource
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        # Dead ones first, or what is requested would queue behind them.
        fail_dead_runs(context.instance, works_on(context.instance, settings.name))
        reason = _reason_to_wait(context.instance, settings.name)
        if reason:
            yield dg.SkipReason(reason)
            return
        requests = list(requests_of_missing(settings, chunk_store, context.instance))
        yield from requests
        if not requests:
            yield dg.SkipReason(f"no chunk of {settings.name} is missing")

    return missing_chunks


def _reason_to_wait(instance: dg.DagsterInstance, extraction: str) -> str | None:
    """Work in progress that would do the same."""
    filters = works_on(instance, extraction)
    alive = alive_runs(instance, filters)
    if alive:
        return f"run {alive[0].run_id} of {extraction} still waits or goes on"
    backfill = unfinished_backfill(instance, extraction)
    if backfill:
        return f"backfill {backfill} of {extraction} has not ended"
    retried = run_to_be_retried(instance, filters)
    return f"run {retried} of {extraction} is about to be tried again" if retried else None


def requests_of_missing(
    settings: ExtractionSettings, chunk_store: ChunkStoreResource, instance: dg.DagsterInstance
) -> Iterator[dg.RunRequest]:
    """One run for each contiguous range of missing chunks; one run of everything if the corpus has to be made first,
    because only the new corpus shows which chunks stay current."""
    tags = {REUSE_TAG: "true"}
    try:
        pending = Pending(ExtractionPlan(settings, chunk_store.open()), instance)
    except (CorpusNotReady, DamagedFileError):
        kept = [target.key for target in chunk_targets(settings) if settings.keep.keeps(target.asset)]
        assets = [corpus_key(settings), *kept]
        yield dg.RunRequest(asset_selection=assets, tags={**tags, **range_tags(settings.chunk_keys)})
        return
    for keys in ranges(settings.chunk_keys, pending.keys, settings.partitions_per_run):
        yield dg.RunRequest(asset_selection=pending.assets(keys), tags={**tags, **range_tags(keys)})


def build_automation_sensor(settings: ExtractionSettings) -> dg.SensorDefinition:
    """Evaluates the conditions of the extraction's assets. Off until a user switches it on."""
    return dg.AutomationConditionSensorDefinition(
        _automation_name(settings),
        target=dg.AssetSelection.groups(settings.name),
        minimum_interval_seconds=AUTOMATION_SECONDS,
        description=f"Merges the chunks of {settings.name} once all are there and their checks have passed, and writes "
        "the report; what follows from the weights alone it computes at once.",
    )


def build_recovery(settings: ExtractionSettings) -> dg.SensorDefinition:
    """Ends runs with a dead process. Always on, because such a run would keep its slot in the pool."""

    @dg.sensor(
        name=f"{settings.name}_recovery",
        minimum_interval_seconds=RECOVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Marks runs of {settings.name} as failed whose process was killed or has crashed, which gives "
        "back their slot in the pool.",
    )
    def recovery(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = fail_dead_runs(context.instance, works_on(context.instance, settings.name))
        reasons = "; ".join(f"{run.run_id}: {why}" for run, why in ended)
        return dg.SkipReason(f"marked as ended: {reasons}" if ended else "no run was left by a dead process")

    return recovery


def _automation_name(settings: ExtractionSettings) -> str:
    return f"{settings.name}_automation"
