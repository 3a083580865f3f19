"""What is known of the Ray job of a run. Needs no Ray: only the launcher that asks the cluster does."""

from typing import NamedTuple, Protocol, cast

import dagster as dg

RAY_JOB_TAG = "extraction_assets/ray_job"
"""Run tag: the submission id of the run's job, and the run's own id, since retries inherit tags."""


class JobState(NamedTuple):
    """What a Ray cluster says of a run's job."""

    is_known: bool
    """False if the cluster did not answer, or may not have the job yet."""
    why_lost: str | None = None
    """Why the job can end its run no more; None while it goes on."""


class _AsksTheCluster(Protocol):
    def job_state(self, run: dg.DagsterRun) -> JobState: ...


def job_of(run: dg.DagsterRun) -> str | None:
    """The submission id of a run's job; None for a run that was not launched on Ray, as one of a terminal."""
    job, _, run_id = run.tags.get(RAY_JOB_TAG, "").partition(" ")
    return job if run_id == run.run_id else None


def job_tag(run: dg.DagsterRun, job: str) -> dict[str, str]:
    """The tag that ``job_of`` reads."""
    return {RAY_JOB_TAG: f"{job} {run.run_id}"}


def job_state(instance: dg.DagsterInstance, run: dg.DagsterRun) -> JobState:
    """What the cluster says of a run's job: not known where the run has none, or the home launches elsewhere now."""
    launcher = instance.run_launcher if job_of(run) is not None else None
    if not hasattr(launcher, "job_state"):
        return JobState(is_known=False)
    return cast(_AsksTheCluster, launcher).job_state(run)
