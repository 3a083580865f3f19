"""What the launcher asks Ray for, and which runs it holds for lost; the cluster's answers are replaced here."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.op_concurrency_limits_counter import RunOpConcurrency
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from extraction_assets.dagster_instance.dead_runs import dead_runs
from extraction_assets.dagster_instance.ray_jobs import JobState, job_of
from extraction_assets_tests.processes import ROOT

pytest.importorskip("ray", reason="Ray is not installed here: the extra 'ray' brings it")
pytest.importorskip("dagster_ray", reason="dagster-ray is not installed here: the extra 'ray' brings it")

from ray.dashboard.modules.job.pydantic_models import JobDetails, JobType
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from extraction_assets.dagster_instance.ray_launcher import RayRunLauncher

CHUNKS = RunOpConcurrency(root_key_counts={"gpu": 1}, has_unconstrained_root_nodes=False, all_pools={"gpu"})
OTHER = RunOpConcurrency(root_key_counts={}, has_unconstrained_root_nodes=True, all_pools=set())
NO_GPU = "CUDA_VISIBLE_DEVICES"


class Cluster:
    """Takes jobs in the place of a head, and says of them what it was given to say."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.says: JobDetails | Exception | None = None

    def submit_job(self, **job: Any) -> None:
        self.jobs.append(job)

    def list_jobs(self) -> list[JobDetails]:
        return []

    def get_job_info(self, _job: str) -> JobDetails:
        assert self.says is not None, "nobody asks the cluster"
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def instance(tmp_path: Path, cluster: Cluster) -> Iterator[dg.DagsterInstance]:
    """The home of docs/ray.md, with its history in SQLite."""
    settings = yaml.safe_load((ROOT / "deploy" / "ray" / "dagster.yaml").read_text("utf-8"))
    del settings["storage"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        vars(_launcher(instance))["client"] = cluster
        yield instance


def _launcher(instance: dg.DagsterInstance) -> RayRunLauncher:
    assert isinstance(instance.run_launcher, RayRunLauncher)
    return instance.run_launcher


def _launched(
    instance: dg.DagsterInstance, pools: RunOpConcurrency | None = CHUNKS, tags: Mapping[str, str] | None = None
) -> dg.DagsterRun:
    """A run that was handed to the launcher, and has not begun."""
    code = RepositoryPythonOrigin("python", ModuleCodePointer("lab", "defs", None), None, ["dagster"], {})
    run = dg.DagsterRun(
        job_name="job",
        tags=tags or {},
        status=dg.DagsterRunStatus.STARTING,
        job_code_origin=JobPythonOrigin("job", code),
        run_op_concurrency=pools,
    )
    instance.run_storage.add_run(run)
    instance.run_launcher.launch_run(LaunchRunContext(run, None))
    return _now(instance, run)


def _now(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def _begun(instance: dg.DagsterInstance) -> dg.DagsterRun:
    run = _launched(instance)
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "job")
    instance.report_dagster_event(event, run.run_id)
    return _now(instance, run)


def _job(status: JobStatus, message: str = "") -> JobDetails:
    return JobDetails(type=JobType.SUBMISSION, entrypoint="", status=status, message=message)


@pytest.mark.parametrize(
    ("pools", "tag", "gpus"),
    [
        (CHUNKS, {}, 1),
        (OTHER, {}, None),
        (None, {}, None),  # of an earlier release, or launched by hand
        (CHUNKS, {"num_gpus": 0.5}, 0.5),
        (CHUNKS, {"num_gpus": 0}, None),
        (OTHER, {"num_gpus": 1}, 1),
        (CHUNKS, {"num_cpus": 16}, 1),
    ],
)
def test_a_run_of_chunks_asks_for_a_gpu_and_others_see_none(
    instance: dg.DagsterInstance,
    cluster: Cluster,
    pools: RunOpConcurrency | None,
    tag: dict[str, float],
    gpus: float | None,
) -> None:
    _launched(instance, pools, {"dagster-ray/config": json.dumps(tag)} if tag else {})
    (job,) = cluster.jobs
    assert (job["entrypoint_num_gpus"] or None) == gpus
    assert job["entrypoint_num_cpus"] == tag.get("num_cpus", 4)
    assert (job["runtime_env"]["env_vars"].get(NO_GPU) == "") is (gpus is None)
    assert job["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "30"


def test_no_run_has_the_environment_of_an_earlier_one(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    for pools, tag in ((OTHER, {"env_vars": ["NAME=value"]}), (CHUNKS, {})):
        _launched(instance, pools, {"dagster-ray/config": json.dumps(tag)})
    _, later = cluster.jobs
    assert later["runtime_env"]["env_vars"].keys() == {"RAY_JOB_STOP_WAIT_TIME_S", "DAGSTER_RUN_JOB_NAME"}


def test_a_tag_keeps_its_environment_on_a_run_without_a_gpu(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    _launched(instance, OTHER, {"dagster-ray/config": json.dumps({"env_vars": ["NAME=value"]})})
    (job,) = cluster.jobs
    assert job["runtime_env"]["env_vars"].items() >= {"NAME": "value", NO_GPU: ""}.items()


@pytest.mark.parametrize("tag", ["{", '{"num_gpus": "many"}', '{"gpus": 1}'])
def test_a_tag_that_ray_cannot_read_is_refused_by_name(
    instance: dg.DagsterInstance, cluster: Cluster, tag: str
) -> None:
    with pytest.raises(ValueError, match=r"the tag dagster-ray/config of run .* is \{"):
        _launched(instance, tags={"dagster-ray/config": tag})
    assert cluster.jobs == []


def test_a_run_knows_its_job_and_its_retry_does_not_take_it_over(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    run = _launched(instance)
    (job,) = cluster.jobs
    assert job_of(run) == job["submission_id"] == f"dagster-run-{run.run_id}"
    assert job_of(dg.DagsterRun(job_name="job", tags=run.tags)) is None


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.STOPPED, JobStatus.SUCCEEDED])
def test_a_run_is_lost_with_its_job(instance: dg.DagsterInstance, cluster: Cluster, status: JobStatus) -> None:
    run = _begun(instance)
    cluster.says = _job(status, "The actor died.\nIts node has died., last available logs: secret")
    ((dead, why),) = dead_runs(instance)
    assert dead.run_id == run.run_id
    job = f"dagster-run-{run.run_id}"
    assert why == f"its Ray job is {status}: The actor died. Its node has died. (ray job logs {job})"
    assert _launcher(instance).check_run_worker_health(run) == (WorkerStatus.FAILED, why, None, None)


def test_a_run_whose_job_failed_before_it_began_is_lost(instance: dg.DagsterInstance, cluster: Cluster) -> None:
    run = _launched(instance)
    cluster.says = _job(JobStatus.FAILED, "Job entrypoint command failed with exit code 127")
    assert [dead.run.run_id for dead in dead_runs(instance)] == [run.run_id]


@pytest.mark.parametrize("status", [JobStatus.PENDING, JobStatus.RUNNING])
def test_a_run_goes_on_with_its_job_whatever_processes_are_here(
    instance: dg.DagsterInstance, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, status: JobStatus
) -> None:
    run = _begun(instance)
    monkeypatch.setattr("extraction_assets.dagster_instance.dead_runs.SILENT_SECONDS", -1.0)
    cluster.says = _job(status)
    assert list(dead_runs(instance)) == []
    assert _launcher(instance).check_run_worker_health(run).status == WorkerStatus.RUNNING


def test_a_head_that_was_started_again_has_lost_the_runs_that_had_begun(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    begun, waiting = _begun(instance), _launched(instance)
    cluster.says = RuntimeError("Request failed with status code 404: Job x does not exist.")
    ((dead, why),) = dead_runs(instance)
    assert dead.run_id == begun.run_id
    assert why == f"Ray has no job dagster-run-{begun.run_id}: its head was started again since"
    assert not _launcher(instance).job_state(waiting).is_known


@pytest.mark.parametrize(
    "error",
    [ConnectionError("Failed to connect to Ray"), RuntimeError("status code 500"), AuthenticationError("no token")],
)
def test_a_head_that_does_not_answer_loses_no_run(
    instance: dg.DagsterInstance, cluster: Cluster, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    run = _begun(instance)
    cluster.says = error
    with caplog.at_level(logging.WARNING):
        assert _launcher(instance).job_state(run) == JobState(is_known=False)
        assert _launcher(instance).check_run_worker_health(run).status == WorkerStatus.RUNNING
    assert f"does not say how job dagster-run-{run.run_id} is: {error}" in caplog.text
    assert list(dead_runs(instance)) == []


def test_a_run_of_a_terminal_is_not_held_for_lost_where_others_are_jobs(
    instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    run = dg.DagsterRun(job_name="job", status=dg.DagsterRunStatus.STARTED)
    instance.run_storage.add_run(run)
    assert cluster.says is None
    assert _launcher(instance).check_run_worker_health(run).status == WorkerStatus.RUNNING


def test_a_home_that_launches_elsewhere_now_judges_the_runs_of_ray_by_its_own_means(tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = dg.DagsterRun(job_name="job", status=dg.DagsterRunStatus.STARTED)
        instance.run_storage.add_run(run)
        instance.add_run_tags(run.run_id, {"extraction_assets/ray_job": f"dagster-run-{run.run_id} {run.run_id}"})
        assert list(dead_runs(instance)) == []
