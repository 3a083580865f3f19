"""Runs and backfills of an extraction that have not ended, and its history."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionsFilter, BulkActionStatus

from extraction_assets.recovery import dead_runs

ALIVE = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

_EXTRACTION_ASSETS = {"corpus", "model_activations"}
_SAE_ASSETS = {"sae_features", "top_k_table", "feature_examples", "feature_report"}


class RunAlive(ValueError):
    """An extraction that cannot be touched now."""


def refuse_while_alive(instance: dg.DagsterInstance, extraction: str) -> None:
    """RunAlive where a run or a backfill of the extraction's assets has not ended; runs of dead processes have."""
    dead = {run.run_id for run, _ in dead_runs(instance)}
    for run in instance.get_runs(dg.RunsFilter(statuses=list(ALIVE))):
        if run.run_id not in dead and any(belongs_to(key, extraction) for key in _selected(instance, run)):
            raise RunAlive(
                f"run {run.run_id[:8]} of {extraction} is {run.status.value.lower()}: wait for it or cancel it, or use "
                "--force if its host is gone"
            )
    pending = [status for status in BulkActionStatus if status not in BULK_ACTION_TERMINAL_STATUSES]
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=pending)):
        if any(belongs_to(key, extraction) for key in backfill.asset_selection or ()):
            raise RunAlive(
                f"backfill {backfill.backfill_id} of {extraction} has not ended: wait for it or cancel it, or use "
                "--force if no daemon will go on with it"
            )


def belongs_to(key: dg.AssetKey, extraction: str, sae: str | None = None) -> bool:
    """Whether a key is an asset of the extraction, of one SAE where one is named; a namesake's other assets are not."""
    path = key.path
    if path[0] != extraction:
        return False
    if len(path) == 2:
        return sae is None and path[1] in _EXTRACTION_ASSETS
    return len(path) == 3 and path[2] in _SAE_ASSETS and sae in (None, path[1])


def history(instance: dg.DagsterInstance, extraction: str, sae: str | None = None) -> list[dg.AssetKey]:
    """Keys of the extraction's assets that Dagster remembers."""
    return [key for key in instance.all_asset_keys() if belongs_to(key, extraction, sae)]


def _selected(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[dg.AssetKey]:
    """Assets that a run makes: those it was asked for, else those of all its steps."""
    if run.asset_selection is not None or run.execution_plan_snapshot_id is None:
        yield from run.asset_selection or ()
        return
    for step in instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).steps:
        for output in step.outputs:
            if output.properties is not None and output.properties.asset_key is not None:
                yield output.properties.asset_key
