"""The step of the chunk assets: how a Dagster run selects the chunks to compute and records them."""

from collections.abc import Iterator

import dagster as dg

from extraction_assets.assets.chunks.checks import ChunkEvent, chunk_check_specs, recorded_checks
from extraction_assets.assets.chunks.run import ChunkRun
from extraction_assets.assets.corpus.run import materialize_corpus
from extraction_assets.catalog import FEATURE_EXAMPLES
from extraction_assets.dagster_instance.dead_runs import note_host
from extraction_assets.execution.assignment import current_assignment
from extraction_assets.execution.failures import as_dagster_failure
from extraction_assets.execution.hub_downloads import hub_downloads
from extraction_assets.execution.keys import REUSE_TAG, corpus_key, sae_key
from extraction_assets.execution.lineage import Lineage
from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.resources import ChunkStoreResource, GpuResource
from extraction_assets.settings import Chunk, ExtractionSettings


def run_chunks(
    context: dg.AssetExecutionContext, settings: ExtractionSettings, gpu: GpuResource, chunk_store: ChunkStoreResource
) -> Iterator[ChunkEvent]:
    """Runs the selected chunks through the model and the SAEs, and records each as soon as its files are durable."""
    with as_dagster_failure(context.retry_number, context.log), hub_downloads(context.log):
        _refuse_merge_in_one_run(context, settings)
        note_host(context.instance, context.run.run_id)
        store = chunk_store.open()
        if corpus_key(settings) in (context.run.asset_selection or ()):
            # Without activations nothing selected lies between, and Dagster may take this step first.
            materialize_corpus(settings, store, gpu.num_workers, context.log)
        plan = ExtractionPlan(settings, store)
        selected, lineage = context.selected_asset_keys, Lineage(context.instance, plan)
        if selected:
            assignment, chunks = current_assignment(), [settings.chunk(key) for key in context.partition_keys]
            assignment.begin(context.partition_keys)  # before the wait for a GPU: others may do these chunks meanwhile
            with (
                gpu.use_device(context.log) as device,
                ChunkRun(plan, gpu, device, selected, lineage, context.log, assignment) as run,
            ):
                yield from run.events(chunks, reuse=_resumes(context))
        else:  # "Execute" of the Checks tab: checks alone, and no partition
            checks, chunks = context.selected_asset_check_keys, requested_chunks(context, settings)
            yield from map(lineage.targeted, recorded_checks(plan, checks, chunks, context.log))
        yield from _check_outputs(context, settings)


def requested_chunks(context: dg.AssetExecutionContext, settings: ExtractionSettings) -> list[Chunk]:
    """The chunks of the run's partitions; all chunks where it has none."""
    if context.has_partition_key or context.has_partition_key_range:
        return [settings.chunk(key) for key in context.partition_keys]
    return settings.chunks


def _check_outputs(context: dg.AssetExecutionContext, settings: ExtractionSettings) -> Iterator[dg.Output[None]]:
    """Dagster expects one output of each selected check, and logs "did not yield" for checks reported by chunk."""
    for spec in chunk_check_specs(settings):
        if spec.key in context.selected_asset_check_keys:
            yield dg.Output(None, output_name=spec.get_python_identifier())


def _resumes(context: dg.AssetExecutionContext) -> bool:
    """Whether durable chunks are reused: a tag of the run says so, or the run is a retry."""
    if context.retry_number > 0 or REUSE_TAG in context.run.tags:
        return True
    parent_id = context.run.get_parent_run_id()
    parent = context.instance.get_run_by_id(parent_id) if parent_id else None
    return parent is not None and parent.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def _refuse_merge_in_one_run(context: dg.AssetExecutionContext, settings: ExtractionSettings) -> None:
    """Dagster skips a step after chunks that record themselves one by one, and calls the run a success."""
    merges = {sae_key(settings, sae, FEATURE_EXAMPLES) for sae in settings.saes}
    if merges & set(context.run.asset_selection or ()):
        raise dg.Failure(
            f"{FEATURE_EXAMPLES} must be a run of its own, after the run of the chunks: select the chunk assets alone",
            allow_retries=False,
        )
