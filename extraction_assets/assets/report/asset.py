"""A report for people, one for each SAE: declared here, so that definitions load without what writes it (``run``)."""

import dagster as dg

from extraction_assets.catalog import FEATURE_EXAMPLES, FEATURE_RELATIONS, FEATURE_REPORT, asset_row
from extraction_assets.execution.keys import sae_key
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.settings import ExtractionSettings


def build_feature_report(settings: ExtractionSettings, sae: str) -> dg.AssetsDefinition:
    """The report of one SAE."""
    row = asset_row(FEATURE_REPORT)

    @dg.asset(
        key=sae_key(settings, sae, FEATURE_REPORT),
        group_name=settings.name,
        # The page shows the flags of the relations, so it is written after them.
        deps=[sae_key(settings, sae, asset) for asset in (FEATURE_EXAMPLES, FEATURE_RELATIONS)],
        code_version=CodeVersions(settings).of(FEATURE_REPORT, sae),
        kinds={row.dagster_kind},
        description=row.description,
        automation_condition=dg.AutomationCondition.eager(),
    )
    def feature_report(
        context: dg.AssetExecutionContext, chunk_store: ChunkStoreResource, results: ResultsResource
    ) -> dg.MaterializeResult:
        from extraction_assets.assets.report.run import run_report

        return run_report(context, settings, sae, chunk_store, results)

    return feature_report
