"""An export of one SAE: declared here, so that definitions load without what writes it (``run``)."""

import dagster as dg

from extraction_assets.catalog import (
    FEATURE_DIRECTIONS,
    FEATURE_EXAMPLES,
    FEATURE_EXPORTS,
    FEATURE_RELATIONS,
    asset_row,
    export_asset,
)
from extraction_assets.execution.keys import sae_key
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.settings import ExtractionSettings


def build_feature_export(settings: ExtractionSettings, sae: str, export_format: str) -> dg.AssetsDefinition:
    """The export of one SAE in one format."""
    row = asset_row(FEATURE_EXPORTS)

    @dg.asset(
        key=sae_key(settings, sae, export_asset(export_format)),
        group_name=settings.name,
        # Formats hold what these give, and are written after them.
        deps=[sae_key(settings, sae, asset) for asset in (FEATURE_EXAMPLES, FEATURE_RELATIONS, FEATURE_DIRECTIONS)],
        code_version=CodeVersions(settings).of(FEATURE_EXPORTS, sae),
        kinds={row.dagster_kind},
        description=f"The features in the format `{export_format}`, which other programs read: a folder of files.",
        automation_condition=dg.AutomationCondition.eager(),
    )
    def feature_export(
        context: dg.AssetExecutionContext, chunk_store: ChunkStoreResource, results: ResultsResource
    ) -> dg.MaterializeResult:
        from extraction_assets.assets.exports.run import run_export

        return run_export(context, settings, sae, export_format, chunk_store, results)

    return feature_export
