"""The three chunk assets, which come from one GPU pass: declared here, so that definitions load without what computes
them (``step``)."""

from collections.abc import Iterator

import dagster as dg

from extraction_assets.assets.chunks.checks import ChunkEvent, chunk_check_specs
from extraction_assets.execution.keys import activations_key, chunk_partitions, corpus_key, sae_key
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
    activations, versions = activations_key(settings), CodeVersions(settings)
    chunk = f" A partition is a chunk of {settings.chunk_size} samples; its key is the first one's index."
    specs = [
        dg.AssetSpec(
            activations,
            deps=[corpus_key(settings)],
            code_version=versions.chunk("model_activations", None),
            skippable=True,
            kinds={"torch"},
            description=f"Outputs of every hook, [samples, positions, width] in the model's dtype.{chunk}",
        )
    ]
    for sae in settings.saes:
        features = sae_key(settings, sae, "sae_features")
        specs += [
            dg.AssetSpec(
                features,
                deps=[activations],
                code_version=versions.chunk("sae_features", sae),
                skippable=True,
                kinds={"torch"},
                description=f"Positive SAE activations at all non-padding positions, in compressed rows.{chunk}",
            ),
            dg.AssetSpec(
                sae_key(settings, sae, "top_k_table"),
                deps=[features],
                code_version=versions.chunk("top_k_table", sae),
                skippable=True,
                kinds={"parquet"},
                description=f"The chunk's strongest examples of every feature, and statistics of all of them.{chunk}",
            ),
        ]
    return specs
