"""Launches runs as jobs of a Ray cluster: dagster-ray's launcher, with GPUs for the runs that compute chunks.

A home's dagster.yaml names it (docs/ray.md). Nothing imports it, because it needs the extra ``ray``.
"""

import json
import logging
from typing import Any

import dagster as dg
import dagster_ray
from dagster_ray.configs import USER_DEFINED_RAY_KEY
from dagster_ray.core.run_launcher import RayLauncherConfig, get_job_submission_id_from_run_id

from extraction_assets.dagster_instance.home import GPU_POOL
from extraction_assets.dagster_instance.private_names import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from extraction_assets.dagster_instance.ray_jobs import JobState, job_of, job_tag

_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""Environment of a run without a GPU: Ray leaves the variable alone, and the run would see those of other runs."""

_LONGEST_REASON = 300

_logger = logging.getLogger(__name__)


class RayRunLauncher(dagster_ray.RayRunLauncher):
    """A Ray job a run, configured as dagster-ray's launcher is, with these differences:

    - ``num_gpus`` is what a run in the pool ``gpu`` asks Ray for. Other runs ask for none and see none, unless their
      tag ``dagster-ray/config`` has ``num_gpus``, which counts for every run, 0 too.
    - Only a run that was launched as a job is lost with its job. One of a terminal is not, nor is any run while the
      cluster does not answer.
    """

    def __init__(self, *, num_gpus: float | None = None, **config: Any) -> None:
        super().__init__(num_gpus=None, **config)  # it would take its default for a tag's 0
        self._gpus_of_chunks = num_gpus

    def launch_run(self, context: LaunchRunContext) -> None:
        """Submits the job. Raises ConnectionError if the cluster cannot be reached, which fails the run."""
        run = context.dagster_run
        # Before the job starts, since it adds tags of its own: one of two writers at once would lose.
        self._instance.add_run_tags(run.run_id, job_tag(run, get_job_submission_id_from_run_id(run.run_id)))
        config = json.dumps(self._config_of(run))
        super().launch_run(context._replace(dagster_run=run.with_tags({**run.tags, USER_DEFINED_RAY_KEY: config})))

    def _config_of(self, run: dg.DagsterRun) -> dict[str, Any]:
        """What a run's tag asks for, with the GPUs of its kind where it says nothing of them."""
        config = config_of_tag(run)
        pools = run.run_op_concurrency.all_pools if run.run_op_concurrency else None
        if config.get("num_gpus") is None:
            config["num_gpus"] = self._gpus_of_chunks if GPU_POOL in (pools or ()) else 0
        # Of every run its own: dagster-ray writes into the one of the launcher, and so into those of later runs.
        config["runtime_env"] = runtime_env = {**(config.get("runtime_env") or self.runtime_env or {})}
        runtime_env["env_vars"] = {**runtime_env.get("env_vars", {}), **({} if config["num_gpus"] else _NO_GPU)}
        return config

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether Dagster's run monitoring should fail a run: only if its job is known to be lost."""
        why = self.job_state(run).why_lost
        return CheckRunHealthResult(WorkerStatus.FAILED if why else WorkerStatus.RUNNING, why)

    def job_state(self, run: dg.DagsterRun) -> JobState:
        """What the cluster says of a run's job."""
        job = job_of(run)
        if job is None:
            return JobState(is_known=False)
        from ray.exceptions import RayError  # takes a second, which a run without a job need not wait

        try:
            details = self.client.get_job_info(job)
        except (
            OSError,
            RuntimeError,
            RayError,
        ) as error:  # what requests raises is an OSError; RayError: a wrong token
            return self._unanswered(run, job, error)
        if not details.status.is_terminal():
            return JobState(is_known=True)
        reason = (details.message or "").partition(", last available logs")[0]
        shown = " ".join(reason.split())[:_LONGEST_REASON]
        return JobState(is_known=True, why_lost=f"its Ray job is {details.status}: {shown} (ray job logs {job})")

    def _unanswered(self, run: dg.DagsterRun, job: str, error: Exception) -> JobState:
        if "status code 404" not in str(error):
            _logger.warning("Ray at %s does not say how job %s is: %s", self.address, job, error)
            return JobState(is_known=False)
        if run.status == dg.DagsterRunStatus.STARTING:
            return JobState(is_known=False)  # it may be submitted in a moment
        return JobState(is_known=True, why_lost=f"Ray has no job {job}: its head was started again since")


def config_of_tag(run: dg.DagsterRun) -> dict[str, Any]:
    """The fields that a run's tag sets. Raises ValueError for anything else."""
    tag = run.tags.get(USER_DEFINED_RAY_KEY, "{}")
    try:
        fields = RayLauncherConfig.model_validate_json(tag).model_dump(exclude_none=True)
        unknown = ", ".join(sorted(json.loads(tag).keys() - RayLauncherConfig.model_fields.keys()))
    except ValueError as error:
        raise ValueError(f"the tag {USER_DEFINED_RAY_KEY} of run {run.run_id} is {tag}: {error}") from error
    if unknown:
        allowed = ", ".join(RayLauncherConfig.model_fields)
        raise ValueError(f"the tag {USER_DEFINED_RAY_KEY} of run {run.run_id} is {tag}: no {unknown}; use {allowed}")
    return fields
