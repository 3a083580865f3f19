"""The run launcher, loaded by Dagster as the cluster configures it, and the Jobs that it makes of runs."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes
import kubernetes_validate
import pytest
import sqlalchemy as sa
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster_k8s.job import UserDefinedDagsterK8sConfig, get_user_defined_k8s_config
from dagster_k8s.launcher import K8sRunLauncher

from extraction_assets.dagster_instance.dagster_yaml import differences_from, template
from extraction_assets.dagster_instance.home import set_up_dagster_home
from extraction_assets_tests.deploy.manifests import KUBERNETES, ROOT, VERSIONS, documents, environment
from extraction_assets_tests.deploy.values_of_chart import instance_of_chart

IMAGE = "registry.example.com/extraction-assets:0.1.0"
STORAGES = ("storage", "run_storage", "event_log_storage", "schedule_storage")
VALUES = yaml.safe_load((KUBERNETES / "values.yaml").read_text("utf-8"))

Job = dict[str, Any]


WAYS = {
    "without-helm": (KUBERNETES / "dagster" / "dagster.yaml").read_text("utf-8"),
    "chart": yaml.safe_dump(instance_of_chart(VALUES)),
}
"""The dagster.yaml of each way in which Dagster comes into the cluster."""


class Cluster:
    """Takes Jobs in the place of an API server."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.jobs: list[tuple[str, Job]] = []

    def create_namespaced_job(self, body: kubernetes.client.V1Job, namespace: str, **_options: object) -> None:
        self.jobs.append((namespace, kubernetes.client.ApiClient().sanitize_for_serialization(body)))

    def launched(self, tags: dict[str, str]) -> Job:
        """The Job of a run with these tags."""
        pointer = ModuleCodePointer("extraction_assets.definitions", "defs", None)
        code = RepositoryPythonOrigin("python", pointer, IMAGE, DEFAULT_DAGSTER_ENTRY_POINT, {})
        origin = JobPythonOrigin("demo_extract", code)
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            run = dg.DagsterRun(job_name="demo_extract", tags=tags, job_code_origin=origin)
            instance.run_storage.add_run(run)
            instance.run_launcher.launch_run(LaunchRunContext(run, None))
        ((namespace, job),) = self.jobs
        assert namespace == "extraction"
        return job


@pytest.fixture(params=WAYS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster whose Dagster keeps its history in SQLite instead of PostgreSQL."""
    settings = {name: part for name, part in yaml.safe_load(WAYS[request.param]).items() if name not in STORAGES}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    made = Cluster(tmp_path)
    monkeypatch.setattr(kubernetes.config, "load_incluster_config", lambda: None)
    monkeypatch.setattr(kubernetes.client, "BatchV1Api", lambda **_options: made)
    return made


def container(job: Job) -> Job:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return only


@pytest.mark.parametrize("version", VERSIONS)
def test_the_job_of_a_run_is_of_the_schema(cluster: Cluster, version: str) -> None:
    kubernetes_validate.validate(cluster.launched({}), version, strict=True)


def test_a_run_has_one_gpu_and_the_image_of_its_code(cluster: Cluster) -> None:
    made = container(cluster.launched({}))
    assert made["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert made["image"] == IMAGE


def test_a_run_knows_store_and_results_and_no_password_stands_in_its_job(cluster: Cluster) -> None:
    made = container(cluster.launched({}))
    (secret,) = documents(KUBERNETES / "secrets.example.yaml")
    variables = environment(made)
    assert {"configMapRef": {"name": "extraction-settings"}} in made["envFrom"]
    for name in ("EXTRACTION_DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"):
        reference = variables[name]["valueFrom"]["secretKeyRef"]
        assert reference["name"] == secret["metadata"]["name"]
        assert reference["key"] == name in secret["stringData"]


def test_a_run_reaches_the_history_by_a_key_of_the_secret(cluster: Cluster) -> None:
    variables = environment(container(cluster.launched({})))
    given = [variables.get(name) for name in ("EXTRACTION_DAGSTER_POSTGRES_URL", "DAGSTER_PG_PASSWORD")]
    (reference,) = [variable["valueFrom"]["secretKeyRef"] for variable in given if variable]
    (secret,) = documents(KUBERNETES / "secrets.example.yaml")
    assert reference["key"] in secret["stringData"]


def test_a_run_has_scratch_and_no_privileges(cluster: Cluster) -> None:
    job = cluster.launched({})
    spec = job["spec"]["template"]["spec"]
    assert [mount["mountPath"] for mount in container(job)["volumeMounts"]] == ["/var/lib/extraction"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert container(job)["securityContext"]["allowPrivilegeEscalation"] is False


def _tags_of_the_page() -> list[str]:
    """The values of ``dagster-k8s/config`` that docs/kubernetes.md shows."""
    return re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "kubernetes.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("tag", _tags_of_the_page())
def test_a_tag_of_the_page_is_one_that_the_launcher_reads(tag: str) -> None:
    config = get_user_defined_k8s_config({"dagster-k8s/config": tag})
    assert config != UserDefinedDagsterK8sConfig()


def test_a_tag_takes_the_gpu_from_a_run_that_needs_none(cluster: Cluster) -> None:
    (without_gpu,) = [tag for tag in _tags_of_the_page() if '"nvidia.com/gpu": "0"' in tag]
    job = cluster.launched({"dagster-k8s/config": without_gpu})
    assert container(job)["resources"]["limits"] == {"nvidia.com/gpu": "0", "memory": "32Gi"}
    kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_what_a_launcher_does_not_know_is_refused(cluster: Cluster) -> None:
    settings = yaml.safe_load((cluster.home / "dagster.yaml").read_text("utf-8"))
    settings["run_launcher"]["config"]["gpus"] = 1
    (cluster.home / "dagster.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    with dg.DagsterInstance.from_config(str(cluster.home)) as instance, pytest.raises(dg.DagsterInvalidConfigError):
        _ = instance.run_launcher


def test_the_instance_waits_for_gpus_and_starts_killed_runs_again(cluster: Cluster) -> None:
    with dg.DagsterInstance.from_config(str(cluster.home)) as instance:
        assert isinstance(instance.run_launcher, K8sRunLauncher)
        assert instance.run_monitoring_start_timeout_seconds == 3600
        assert instance.run_monitoring_max_resume_run_attempts == 0
        assert instance.run_retries_max_retries == 2
        assert instance.run_retries_retry_on_asset_or_op_failure is False


def on_this_server(dagster_yaml: str, url: str) -> str:
    """The dagster.yaml with another server in the place of the one that the chart's values name."""
    settings = yaml.safe_load(dagster_yaml)
    parsed = sa.make_url(url)
    for storage in STORAGES[1:]:
        if storage in settings:
            database = settings[storage]["config"]["postgres_db"]
            database |= {"username": parsed.username, "hostname": parsed.host, "port": parsed.port}
            database["db_name"] = parsed.database
    return yaml.safe_dump(settings)


@pytest.mark.parametrize("way", WAYS)
def test_the_pool_is_set_in_postgresql_by_a_pod_without_a_token(
    way: str, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTRACTION_DAGSTER_POSTGRES_URL", postgres_url)
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", str(sa.make_url(postgres_url).password))
    (tmp_path / "dagster.yaml").write_text(on_this_server(WAYS[way], postgres_url), "utf-8")
    assert set_up_dagster_home(tmp_path, None, 8)[-1] == "pool gpu: at most 8 run(s) at once"
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert "Postgres" in type(instance.event_log_storage).__name__
        assert [(pool.name, pool.limit) for pool in instance.event_log_storage.get_pool_limits()] == [("gpu", 8)]


def test_the_home_is_that_of_setup_but_for_launcher_and_patience() -> None:
    differences = differences_from(WAYS["without-helm"], template("postgres"))
    assert {line.split(":")[0].split(".")[0].strip() for line in differences} == {"run_launcher", "run_monitoring"}


def test_the_chart_configures_the_same_instance() -> None:
    by_chart, without = (yaml.safe_load(way) for way in (WAYS["chart"], WAYS["without-helm"]))
    for part in ("concurrency", "run_monitoring", "run_retries", "retention", "telemetry", "nux"):
        assert by_chart[part] == without[part]
