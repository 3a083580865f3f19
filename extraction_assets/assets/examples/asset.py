"""Merged feature examples: declared here, so that definitions load without what merges and stores them (``run``)."""

from collections.abc import Iterator

import dagster as dg

from extraction_assets.assets.examples.checks import merge_check_specs
from extraction_assets.catalog import FEATURE_EXAMPLES, TOP_K_TABLE, asset_row
from extraction_assets.execution.keys import sae_key
from extraction_assets.execution.lineage import CodeVersions
from extraction_assets.resources import ChunkStoreResource, ResultsResource
from extraction_assets.settings import ExtractionSettings


def build_feature_examples(settings: ExtractionSettings, sae: str) -> dg.AssetsDefinition:
    """The merged examples of one SAE."""
    row, key = asset_row(FEATURE_EXAMPLES), sae_key(settings, sae, FEATURE_EXAMPLES)
    table = sae_key(settings, sae, TOP_K_TABLE)

    @dg.asset(
        key=key,
        group_name=settings.name,
        code_version=CodeVersions(settings).of(FEATURE_EXAMPLES, sae),
        deps=[dg.AssetDep(table, partition_mapping=dg.AllPartitionMapping())],
        check_specs=merge_check_specs(key),
        kinds={row.dagster_kind},
        description=row.description,
        automation_condition=merge_condition(),
    )
    def feature_examples(
        context: dg.AssetExecutionContext, chunk_store: ChunkStoreResource, results: ResultsResource
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        from extraction_assets.assets.examples.run import run_merge

        yield from run_merge(context, settings, sae, chunk_store, results)

    return feature_examples


def merge_condition() -> dg.AutomationCondition:
    """A merge starts once all chunks exist and their checks have passed, and again whenever one is new.

    ``eager`` alone does not fire if everything existed when it was first evaluated.
    """
    condition = dg.AutomationCondition
    complete = condition.missing() & ~condition.any_deps_missing() & ~condition.in_progress()
    first = condition.initial_evaluation() & complete
    return (condition.eager() | first) & condition.all_deps_blocking_checks_passed()
