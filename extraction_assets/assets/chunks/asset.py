"""The three chunk assets, which come from one GPU pass: declared here, so that definitions load without what computes
them (``step``)."""

from collections.abc import Iterator

import dagster as dg

from extraction_assets.assets.chunks.checks import ChunkEvent, chunk_check_specs
from extraction_assets.catalog import asset_row
from extraction_assets.execution.keys import asset_key, chunk_partitions, chunk_targets
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.resources import ChunkStoreResource, GpuResource
from extraction_assets.settings import ExtractionSettings


def build_chunk_assets(settings: ExtractionSettings) -> dg.AssetsDefinition:
    """Model activations of an extraction, and features and top-k table of each of its SAEs, by chunk."""
    partitions = chunk_partitions(settings)
    runs = settings.partitions_per_run

    @dg.multi_asset(
        name=f"{settings.name}_chunks",
        specs=_specs(settings),
        check_specs=chunk_check_specs(settings),
        group_name=settings.name,
        partitions_def=partitions,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(runs) if runs else dg.BackfillPolicy.single_run(),
        pool="gpu",
    )
    def extract_chunks(
        context: dg.AssetExecutionContext, gpu: GpuResource, chunk_store: ChunkStoreResource
    ) -> Iterator[ChunkEvent]:
        """Runs chunks through the model and the SAEs, and records each as soon as its files are durable."""
        from extraction_assets.assets.chunks.step import run_chunks

        yield from run_chunks(context, settings, gpu, chunk_store)

    return extract_chunks


def _specs(settings: ExtractionSettings) -> list[dg.AssetSpec]:
    versions = CodeVersions(settings)
    chunk = f" A partition is a chunk of {settings.chunk_size} samples; its key is the first one's index."
    specs = []
    for target in chunk_targets(settings):
        row = asset_row(target.asset)
        specs.append(
            dg.AssetSpec(
                target.key,
                deps=[asset_key(settings, str(row.upstream), target.sae)],
                code_version=versions.of(row.name, target.sae),
                skippable=True,
                kinds={row.dagster_kind},
                description=row.description + chunk,
            )
        )
    return specs
