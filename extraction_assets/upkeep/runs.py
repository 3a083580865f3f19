"""Runs and backfills of an extraction that have not ended, and its history."""

import dagster as dg

from extraction_assets.recovery import alive_runs, belongs_to, unfinished_backfill, works_on


class RunAlive(ValueError):
    """An extraction that cannot be touched now."""


def refuse_while_alive(instance: dg.DagsterInstance, extraction: str) -> None:
    """RunAlive where a run or a backfill of the extraction's assets has not ended."""
    for run in alive_runs(instance, works_on(instance, extraction)):
        raise RunAlive(
            f"run {run.run_id[:8]} of {extraction} is {run.status.value.lower()}: wait for it or cancel it, or use "
            "--force if no process works on it"
        )
    backfill = unfinished_backfill(instance, extraction)
    if backfill:
        raise RunAlive(
            f"backfill {backfill} of {extraction} has not ended: wait for it or cancel it, or use --force if no daemon "
            "will go on with it"
        )


def history(instance: dg.DagsterInstance, extraction: str, sae: str | None = None) -> list[dg.AssetKey]:
    """Keys of the extraction's assets that Dagster remembers."""
    return [key for key in instance.all_asset_keys() if belongs_to(key, extraction, sae)]
