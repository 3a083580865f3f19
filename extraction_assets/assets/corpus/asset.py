"""The corpus asset: declared here, so that definitions load without what reads and tokenizes (``run``)."""

from collections.abc import Iterator

import dagster as dg

from extraction_assets.assets.corpus.source_check import source_check
from extraction_assets.catalog import CORPUS, asset_row
from extraction_assets.execution.keys import SETTINGS_METADATA, corpus_key
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.resources import ChunkStoreResource, GpuResource
from extraction_assets.settings import ExtractionSettings


def build_corpus(settings: ExtractionSettings) -> dg.AssetsDefinition:
    """The corpus asset of an extraction."""
    row = asset_row(CORPUS)

    @dg.multi_asset(
        name=f"{settings.name}_corpus",
        specs=[
            dg.AssetSpec(
                corpus_key(settings),
                code_version=CodeVersions(settings).of(CORPUS),
                kinds={row.dagster_kind},
                metadata={SETTINGS_METADATA: dg.MetadataValue.json(settings.model_dump(mode="json"))},
                description=row.description,
            )
        ],
        check_specs=[source_check(settings)],
        group_name=settings.name,
        can_subset=True,  # so that the check can be evaluated alone
    )
    def corpus(
        context: dg.AssetExecutionContext, gpu: GpuResource, chunk_store: ChunkStoreResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        """Reads and tokenizes the source, or only compares it with what was tokenized."""
        from extraction_assets.assets.corpus.run import run_corpus

        yield from run_corpus(context, settings, gpu, chunk_store)

    return corpus
