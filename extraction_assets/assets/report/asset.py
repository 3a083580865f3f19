"""A report for people, one for each SAE: declared here, so that definitions load without what writes it (``run``)."""

import dagster as dg

from extraction_assets.execution.keys import sae_key
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.fingerprints import fingerprint


def build_feature_report(settings: ExtractionSettings, sae: str) -> dg.AssetsDefinition:
    """The report of one SAE."""

    @dg.asset(
        key=sae_key(settings, sae, "feature_report"),
        group_name=settings.name,
        deps=[sae_key(settings, sae, "feature_examples")],
        code_version=fingerprint("feature_report"),
        kinds={"html"},
        automation_condition=dg.AutomationCondition.eager(),
    )
    def feature_report(
        context: dg.AssetExecutionContext, chunk_store: ChunkStoreResource, results: ResultsResource
    ) -> dg.MaterializeResult:
        """An HTML page: how often features fire, and fifty of them with their strongest samples shaded."""
        from extraction_assets.assets.report.run import run_report

        return run_report(context, settings, sae, chunk_store, results)

    return feature_report
