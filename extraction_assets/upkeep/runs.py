"""Runs and backfills of an extraction that have not ended, and its history."""

from collections.abc import Callable
from typing import TypeVar

import dagster as dg
import sqlalchemy as sa

from extraction_assets.dagster_instance.dead_runs import alive_runs, belongs_to, unfinished_backfill, works_on
from extraction_assets.host.disk import full_disk, says_no_room
from extraction_assets.host.locations import HistoryUnavailableError, dagster_home


class RunAlive(ValueError):
    """An extraction cannot be changed now."""


Answer = TypeVar("Answer")


def ask_history(ask: Callable[[dg.DagsterInstance], Answer]) -> Answer:
    """What ``ask`` finds in Dagster's history. Raises HistoryUnavailableError on a full disk, on which its SQLite files
    in WAL mode do not open."""
    try:
        with dg.DagsterInstance.get() as instance:
            return ask(instance)
    except (OSError, sa.exc.OperationalError) as error:
        if not says_no_room(error):
            raise
    raise HistoryUnavailableError(f"Dagster's history does not open: {full_disk(dagster_home())}")


def refuse_while_alive(instance: dg.DagsterInstance, extraction: str) -> None:
    """Raises RunAlive if a run or a backfill of the extraction's assets has not ended."""
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
