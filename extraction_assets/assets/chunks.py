"""The three chunk assets: one GPU pass gives model activations, SAE features and top-k tables."""

import warnings
from collections.abc import Iterator

import dagster as dg

from extraction_assets.assets.chunk_run import CHUNK_CHECKS, ChunkRun
from extraction_assets.assets.keys import activations_key, chunk_partitions, corpus_key, failure, sae_key
from extraction_assets.engine.corpus import CorpusError
from extraction_assets.engine.gpu_pass import NonFiniteError
from extraction_assets.engine.language_model import HookError
from extraction_assets.engine.sae_formats import CheckpointError
from extraction_assets.plan import ExtractionPlan
from extraction_assets.resources import ChunkStoreResource, GpuResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.sealed import DamagedFileError

ChunkEvent = dg.AssetMaterialization | dg.AssetCheckEvaluation


def build_chunk_assets(settings: ExtractionSettings) -> dg.AssetsDefinition:
    """Model activations of an extraction, and features and top-k table of each of its SAEs, by chunk."""
    partitions = chunk_partitions(settings)
    runs = settings.partitions_per_run

    @dg.multi_asset(
        name=f"{settings.name}_chunks",
        specs=_specs(settings),
        check_specs=_check_specs(settings, partitions),
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
        try:
            plan = ExtractionPlan(settings, chunk_store.open())
            with gpu.use_device(context.log) as device, ChunkRun(plan, gpu, device, context.log) as run:
                yield from run.events(
                    context.partition_keys, context.selected_asset_keys, reuse=context.retry_number > 0
                )
        except (
            CorpusError,
            HookError,
            CheckpointError,
            DamagedFileError,
            NonFiniteError,
            FileNotFoundError,
        ) as error:
            raise failure(error) from error

    return extract_chunks


def _specs(settings: ExtractionSettings) -> list[dg.AssetSpec]:
    activations = activations_key(settings)
    specs = [
        dg.AssetSpec(
            activations,
            deps=[corpus_key(settings)],
            skippable=True,
            kinds={"torch"},
            description="Outputs of every hook, [samples, positions, width] in the model's dtype; one file a chunk.",
        )
    ]
    for sae in settings.saes:
        features = sae_key(settings, sae, "sae_features")
        specs += [
            dg.AssetSpec(
                features,
                deps=[activations],
                skippable=True,
                kinds={"torch"},
                description="Positive SAE activations at all non-padding positions, in compressed rows.",
            ),
            dg.AssetSpec(
                sae_key(settings, sae, "top_k_table"),
                deps=[features],
                skippable=True,
                kinds={"parquet"},
                description="The chunk's strongest examples of every feature, with statistics of all of them.",
            ),
        ]
    return specs


def _check_specs(settings: ExtractionSettings, partitions: dg.PartitionsDefinition) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        # Dagster calls partitions of checks a preview. Without them the last chunk's result hides a failed one.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                name,
                asset=sae_key(settings, sae, "top_k_table"),
                description=description,
                blocking=True,
                partitions_def=partitions,
            )
            for sae in settings.saes
            for name, description in CHUNK_CHECKS.items()
        ]
