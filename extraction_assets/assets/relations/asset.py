"""Relations of features, one asset for each SAE: declared here, so that definitions load without what counts them
(``run``)."""

import dagster as dg

from extraction_assets.catalog import FEATURE_EXAMPLES, FEATURE_RELATIONS, asset_row
from extraction_assets.execution.keys import sae_key
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.resources import ChunkStoreResource, GpuResource, ResultsResource
from extraction_assets.settings import ExtractionSettings


def build_feature_relations(settings: ExtractionSettings, sae: str) -> dg.AssetsDefinition:
    """The relations of one SAE. In no pool: the step takes a GPU that is free, and waits for none."""
    row = asset_row(FEATURE_RELATIONS)

    @dg.asset(
        key=sae_key(settings, sae, FEATURE_RELATIONS),
        group_name=settings.name,
        deps=[sae_key(settings, sae, FEATURE_EXAMPLES)],
        code_version=CodeVersions(settings).of(FEATURE_RELATIONS, sae),
        kinds={row.dagster_kind},
        description=row.description,
        automation_condition=dg.AutomationCondition.eager(),
    )
    def feature_relations(
        context: dg.AssetExecutionContext,
        gpu: GpuResource,
        chunk_store: ChunkStoreResource,
        results: ResultsResource,
    ) -> dg.MaterializeResult:
        from extraction_assets.assets.relations.run import run_relations

        return run_relations(context, settings, sae, gpu, chunk_store, results)

    return feature_relations
