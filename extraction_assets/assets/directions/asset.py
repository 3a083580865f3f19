"""What each feature writes, by the weights alone: declared here, so that definitions load without what computes it
(``run``)."""

import dagster as dg

from extraction_assets.catalog import FEATURE_DIRECTIONS, asset_row
from extraction_assets.execution.keys import sae_key
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.resources import GpuResource, ResultsResource
from extraction_assets.settings import ExtractionSettings


def build_feature_directions(settings: ExtractionSettings, sae: str) -> dg.AssetsDefinition:
    """The logit lens and the nearest decoder rows of one SAE."""
    row = asset_row(FEATURE_DIRECTIONS)

    @dg.asset(
        key=sae_key(settings, sae, FEATURE_DIRECTIONS),
        group_name=settings.name,
        code_version=CodeVersions(settings).of(FEATURE_DIRECTIONS, sae),
        kinds={row.dagster_kind},
        description=row.description,
        automation_condition=weights_condition(),
    )
    def feature_directions(
        context: dg.AssetExecutionContext, gpu: GpuResource, results: ResultsResource
    ) -> dg.MaterializeResult:
        from extraction_assets.assets.directions.run import run_directions

        return run_directions(context, settings, sae, gpu, results)

    return feature_directions


def weights_condition() -> dg.AutomationCondition:
    """Starts once where it is missing, as no other asset has to be there first, and again when settings or checkpoints
    are others. One that failed is not tried again until then."""
    condition = dg.AutomationCondition
    first = condition.initial_evaluation() & condition.missing()
    wanted = first | condition.newly_missing() | condition.code_version_changed()
    started = condition.newly_requested() | condition.newly_updated()
    return wanted.since(started) & ~condition.in_progress()
