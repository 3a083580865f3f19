"""Runs with a dead process: Dagster leaves them started, with their slot in the pool."""

import atexit
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from extraction_assets.catalog import is_asset_of_sae, names
from extraction_assets.dagster_instance.private_names import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
)
from extraction_assets.dagster_instance.ray_jobs import job_state
from extraction_assets.host import holders
from extraction_assets.host.processes import ProcessPlace, here, is_running

MAX_RETRIES_TAG = "dagster/max_retries"

HOST_TAG = "extraction_assets/host"
"""Run tag: the host whose process ids a run's events hold, and the run's own id, since retries inherit tags."""

PLACE_TAG = "extraction_assets/place"
"""Run tag: the place where the run's process ids mean something (see ``host.processes``), and the run's own id."""

SILENT_SECONDS = 360.0
"""How long a started run may go without an event; run monitoring ends a run that does not start in 300 s."""

_RUNNING = "extraction_assets/running"
"""Folder in the Dagster home with a locked file for the process of each run."""

_PLACES = "extraction_assets/places"
"""Folder in the Dagster home with a file for each place with processes that use it."""

_VISIT_SECONDS = 86400.0

_ALIVE = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


class DeadRun(NamedTuple):
    """A run that no process works on."""

    run: dg.DagsterRun
    why: str


def dead_runs(
    instance: dg.DagsterInstance, concerns: Callable[[dg.DagsterRun], bool] = lambda _run: True
) -> Iterator[DeadRun]:
    """Runs that are in progress by their status, but not by their processes.

    A run of another place (a container, another host) is judged by the lock that its process holds in the Dagster home,
    if the home is shared. Otherwise it cannot be judged from here and is left alone. A run that is a Ray job is judged
    by what its cluster says of the job, if it answers.
    """
    shared = _is_shared(instance)
    for record in instance.get_run_records(dg.RunsFilter(statuses=_ALIVE)):
        run = record.dagster_run
        if concerns(run):
            why = _why_dead(instance, run, record.update_timestamp.timestamp(), shared=shared)
            if why:
                yield DeadRun(run, why)


def fail_dead_runs(
    instance: dg.DagsterInstance,
    concerns: Callable[[dg.DagsterRun], bool] = lambda _run: True,
    *,
    retried: bool = True,
) -> list[DeadRun]:
    """Marks dead runs as failed (canceled, where that was under way), which gives back their slots in pools.

    The daemon tries them again where it is set up to, unless ``retried`` is false.
    """
    _visit(instance)
    found = [dead for dead in dead_runs(instance, concerns) if _goes_on(instance, dead.run)]
    for run, why in found:
        if not retried:
            instance.add_run_tags(run.run_id, {MAX_RETRIES_TAG: "0"})
        message = f"{why}: the run was marked as ended. What it made durable is kept; run the missing chunks"
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message)
        else:
            instance.report_run_failed(run, message)
        if instance.event_log_storage.supports_global_concurrency_limits:
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        for holder in _run_holders(Path(instance.root_directory), run.run_id):
            holder.path.unlink(missing_ok=True)
    return found


def alive_runs(instance: dg.DagsterInstance, concerns: Callable[[dg.DagsterRun], bool]) -> list[dg.DagsterRun]:
    """Runs that are queued or in progress, without those with a dead process."""
    dead = {run.run_id for run, _ in dead_runs(instance, concerns)}
    waiting = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, *_ALIVE]
    runs = instance.get_runs(dg.RunsFilter(statuses=waiting))
    return [run for run in runs if run.run_id not in dead and concerns(run)]


def works_on(instance: dg.DagsterInstance, extraction: str) -> Callable[[dg.DagsterRun], bool]:
    """Whether a run makes assets of an extraction."""
    return lambda run: any(belongs_to(key, extraction) for key in _selected(instance, run))


def belongs_to(key: dg.AssetKey, extraction: str, sae: str | None = None) -> bool:
    """Whether a key is an asset of the extraction, of one SAE where one is named; a namesake's other assets are not."""
    path = key.path
    if path[0] != extraction:
        return False
    if len(path) == 2:
        return sae is None and path[1] in names("extraction")
    return len(path) == 3 and is_asset_of_sae(path[2]) and sae in (None, path[1])


def note_host(instance: dg.DagsterInstance, run_id: str) -> None:
    """Note on a run that this process works on it: its host and place, and a lock that lasts as long as the process."""
    _visit(instance)
    instance.add_run_tags(run_id, {HOST_TAG: f"{here().host} {run_id}", PLACE_TAG: json.dumps([*here(), run_id])})
    thread = threading.get_ident()
    if thread in _held and _held[thread][0] == run_id:
        return
    _release(thread)  # of a run that this thread made before
    with contextlib.suppress(OSError):  # on a full disk the tags must suffice
        _held[thread] = run_id, holders.hold(Path(instance.root_directory) / _RUNNING, run_id)


def _release(thread: int) -> None:
    if thread in _held:
        _, held = _held.pop(thread)
        held.release()


def _release_all() -> None:
    for thread in list(_held):
        _release(thread)


_held: dict[int, tuple[str, holders.Held]] = {}
"""The run that each thread of this process works on, and its lock: a process may make several runs at once."""

atexit.register(_release_all)


def runs_in_progress(dagster_home: Path) -> list[holders.Holder]:
    """Processes that hold the lock of a run, whatever the history says."""
    return [holder for holder in _run_holders(dagster_home) if holders.is_alive(holder)]


def _run_holders(dagster_home: Path, run_id: str = "*") -> list[holders.Holder]:
    """Noted processes of a run or of all, dead ones too."""
    found = (holders.read(path) for path in sorted((dagster_home / _RUNNING).glob(f"{run_id}@*")))
    return [holder for holder in found if holder is not None]


def _visit(instance: dg.DagsterInstance) -> None:
    """Note that processes of this place use the home."""
    with contextlib.suppress(OSError):
        folder = Path(instance.root_directory) / _PLACES
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _visitor()).touch()


def _is_shared(instance: dg.DagsterInstance) -> bool:
    """Whether a process of another place has used this home within a day."""
    recent, folder = time.time() - _VISIT_SECONDS, Path(instance.root_directory) / _PLACES
    try:
        return any(path.name != _visitor() and path.stat().st_mtime >= recent for path in folder.iterdir())
    except OSError:
        return False


def _visitor() -> str:
    place = here()
    return "-".join(part for part in (place.boot, place.namespace) if part) or place.host


def unfinished_backfill(instance: dg.DagsterInstance, extraction: str) -> str | None:
    """The id of a backfill of an extraction's assets that has not ended: it may be between two runs."""
    pending = [status for status in BulkActionStatus if status not in BULK_ACTION_TERMINAL_STATUSES]
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=pending)):
        if any(belongs_to(key, extraction) for key in backfill.asset_selection or ()):
            return backfill.backfill_id
    return None


def run_to_be_retried(instance: dg.DagsterInstance, concerns: Callable[[dg.DagsterRun], bool]) -> str | None:
    """The id of a failed run that the daemon is about to try again."""
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=50)
    return next((run.run_id for run in failed if run.is_complete_and_waiting_to_retry and concerns(run)), None)


class _Process(NamedTuple):
    pid: int
    seen: float
    """Time of its last event: a process that began later has only the same number."""


def _goes_on(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run with a dead process is still unfinished: the process may have ended it before it died."""
    now = instance.get_run_by_id(run.run_id)
    return now is not None and now.status in _ALIVE


def _processes(instance: dg.DagsterInstance, run_id: str) -> list[_Process]:
    """The processes that said that they work on a run."""
    found = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        data = entry.get_dagster_event().event_specific_data
        pid = getattr(data, "metadata", {}).get("pid")
        if pid is not None:
            found[int(pid.value)] = entry.timestamp
    return [_Process(pid, seen) for pid, seen in found.items()]


def _why_dead(instance: dg.DagsterInstance, run: dg.DagsterRun, since: float, *, shared: bool) -> str | None:
    """Why no process works on a run any more; None if one does, or if that cannot be known here."""
    job = job_state(instance, run)
    if job.is_known:
        return job.why_lost
    place = _noted_place(run)
    if place is not None and not place.is_here():
        return _why_dead_elsewhere(instance, run, place)
    if place is None:
        if not _may_be_of_this_host(instance, run):
            return None
        if shared and time.time() - since <= SILENT_SECONDS:
            return None  # it may have begun a moment ago in another place, whose process ids mean nothing here
    processes = _processes(instance, run.run_id)
    if not processes:
        silent = time.time() - since
        return f"no process has worked on it for {silent:.0f} s" if silent > SILENT_SECONDS else None
    if any(map(_is_alive, processes)):
        return None
    pids = ", ".join(str(process.pid) for process in processes)
    return f"its process {pids} is gone, killed or crashed"


def _is_alive(process: _Process) -> bool:
    return is_running(process.pid, process.seen)


def _why_dead_elsewhere(instance: dg.DagsterInstance, run: dg.DagsterRun, place: ProcessPlace) -> str | None:
    found = _run_holders(Path(instance.root_directory), run.run_id)
    if any(holders.is_alive(holder) for holder in found):
        return None
    if found:
        return f"its {', '.join(map(str, found))} is gone, killed or crashed"
    return f"{place.host} was started again since" if place.is_gone() else None


def _noted_place(run: dg.DagsterRun) -> ProcessPlace | None:
    """The place that ``note_host`` noted on this very run: retries inherit tags. None if an earlier version did."""
    try:
        *place, run_id = json.loads(run.tags[PLACE_TAG])
        return ProcessPlace(*map(str, place)) if run_id == run.run_id else None
    except (KeyError, ValueError, TypeError):
        return None


def _may_be_of_this_host(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    # Dagster's own storages are files of this host, whatever its name is now; others are servers that hosts may share.
    if type(instance.run_storage).__module__.split(".")[0] == "dagster":
        return True
    return run.tags.get(HOST_TAG) == f"{here().host} {run.run_id}"


def _selected(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[dg.AssetKey]:
    """Assets that a run makes: its selection, or the assets of all its steps."""
    yield from (check.asset_key for check in run.asset_check_selection or ())
    if run.asset_selection is not None or run.execution_plan_snapshot_id is None:
        yield from run.asset_selection or ()
        return
    for step in instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).steps:
        for output in step.outputs:
            if output.properties is None:
                continue
            if output.properties.asset_key is not None:
                yield output.properties.asset_key
            if output.properties.asset_check_key is not None:
                yield output.properties.asset_check_key.asset_key
