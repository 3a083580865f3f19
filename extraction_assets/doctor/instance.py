"""Dagster's home: its settings, its daemon, and runs that no process computes any more."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from extraction_assets.dagster_instance.home import POSTGRES_VARIABLE, storage_of
from extraction_assets.engine.findings import Finding
from extraction_assets.host.disk import full_disk, says_no_room
from extraction_assets.host.locations import HistoryUnavailableError, dagster_home


def check_dagster_home() -> Iterator[Finding]:
    """Whether ``dagster.yaml`` is there and can be read."""
    home = dagster_home()
    if not home.is_dir():
        yield Finding("ok", f"{home} is not made yet: the first run makes it with its dagster.yaml", check="dagster")
    elif not (home / "dagster.yaml").is_file():
        yield Finding(
            "warning",
            f"{home} has no dagster.yaml: no pool limits, no run queue settings, telemetry on",
            check="dagster",
            advice="extraction-assets setup writes one",
        )
    elif os.environ.get(POSTGRES_VARIABLE) and storage_of(home) == "sqlite":
        yield Finding(
            "warning",
            f"{POSTGRES_VARIABLE} is set, but {home} keeps its history in SQLite",
            check="dagster",
            advice=f"extraction-assets setup --storage postgres, or unset {POSTGRES_VARIABLE}",
        )
    else:
        yield Finding("ok", f"{home / 'dagster.yaml'}", check="dagster")


def check_pools() -> Iterator[Finding]:
    """Whether the pool of runs that compute has a limit of its own."""
    with _instance() as instance:
        if instance is None:
            return
        limits = {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()}
        default = instance.get_concurrency_config().pool_config.default_pool_limit
    if "gpu" in limits:
        yield Finding("ok", f"pool gpu: {limits['gpu']} at once", check="pools")
    else:
        yield Finding(
            "warning",
            f"pool gpu has no limit of its own; Dagster does not hold to the default ({default}) "
            "when a pool is first used",
            check="pools",
            advice="extraction-assets setup --gpus N",
        )


def check_daemon() -> Iterator[Finding]:
    """Whether the daemon lives, and what waits for it."""
    import dagster as dg

    with _instance() as instance:
        if instance is None:
            return
        statuses = instance.get_daemon_statuses()
        queued = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
    silent = sorted(name for name, status in statuses.items() if status.required and not status.healthy)
    for name, status in statuses.items():
        errors = (status.last_heartbeat.errors if status.last_heartbeat else None) or []
        if errors and name not in silent:
            first = str(errors[0].message).strip().splitlines()[0]
            yield Finding(
                "warning", f"{name} reports: {first}", check="daemon", advice="see the UI under Deployment, Daemons"
            )
    if not silent:
        yield Finding("ok", f"alive: {', '.join(sorted(statuses))}", check="daemon")
        return
    what = "not running" if len(silent) == len(statuses) else f"silent: {', '.join(silent)}"
    text = f"{what}: schedules, sensors, backfills and queued runs wait"
    advice = "extraction-assets ui runs it beside the UI; so does dagster-daemon run"
    if queued:
        yield Finding("error", f"{text}; {queued} queued run(s) wait for it now", check="daemon", advice=advice)
    else:
        yield Finding("warning", text, check="daemon", advice=advice)


def check_runs(recover: str) -> Callable[[], Iterator[Finding]]:
    """Whether runs with a dead process are marked as started; the command ``recover`` ends them."""

    def check() -> Iterator[Finding]:
        from extraction_assets.dagster_instance.dead_runs import alive_runs, dead_runs

        with _instance() as instance:
            if instance is None:
                return
            dead, alive = list(dead_runs(instance)), alive_runs(instance, lambda _run: True)
        for run, why in dead:
            text = f"run {run.run_id[:8]} ({run.job_name}) is {run.status.value.lower()}, but {why}"
            yield Finding("error", text, check="runs", advice=recover)
        if alive or not dead:
            yield Finding("ok", f"{len(alive)} under way or waiting" if alive else "none under way", check="runs")

    return check


class _instance:
    """Dagster's instance at its home; None if the home does not exist yet, because opening it would make it."""

    def __enter__(self) -> Any:
        import dagster as dg

        home: Path = dagster_home()
        made = (home / "dagster.yaml").is_file() or (home / "storage").is_dir()
        self._opened = None
        try:
            self._opened = dg.DagsterInstance.from_config(str(home)) if made else None
        except Exception as error:
            _raise_if_full(error)
            raise
        return self._opened

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if self._opened is not None:
            self._opened.dispose()
        if error is not None:
            _raise_if_full(error)


def _raise_if_full(error: BaseException) -> None:
    if says_no_room(error):
        raise HistoryUnavailableError(f"Dagster's history does not open: {full_disk(dagster_home())}") from None
