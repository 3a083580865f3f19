"""The command of a run's Job, in a process that has the Job's environment and nothing else of the launcher."""

import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin

from extraction_assets.component import build_definitions
from extraction_assets.execution.keys import corpus_key
from extraction_assets.resources import ChunkStoreResource, GpuResource, ResultsResource
from extraction_assets.settings import ExtractionSettings
from extraction_assets_tests import processes, tiny
from extraction_assets_tests.daemon_lab import DEFINITIONS
from extraction_assets_tests.deploy.manifests import KUBERNETES, environment

IMAGE = "registry.example.com/extraction-assets:0.1.0"


class Pods:
    """An API server's Jobs, which wait to be run."""

    def __init__(self) -> None:
        self.containers: list[dict[str, Any]] = []

    def create_namespaced_job(self, body: kubernetes.client.V1Job, namespace: str, **_options: object) -> None:
        job = kubernetes.client.ApiClient().sanitize_for_serialization(body)
        self.containers += job["spec"]["template"]["spec"]["containers"]


@pytest.fixture
def settings(tiny_folder: Path, tmp_path: Path) -> ExtractionSettings:
    """The tiny extraction, in a package ``lab`` beside the test's home."""
    made = tiny.make_settings(tiny_folder)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").write_text("")
    (tmp_path / "lab" / "definitions.py").write_text(DEFINITIONS)
    (tmp_path / "lab" / "settings.json").write_text(made.model_dump_json())
    return made


@pytest.fixture
def instance(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    """The instance of dagster/dagster.yaml, as it is."""
    url = postgres_url.replace("postgresql:", "postgresql+psycopg2:")
    monkeypatch.setenv("EXTRACTION_DAGSTER_POSTGRES_URL", url)
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_text((KUBERNETES / "dagster" / "dagster.yaml").read_text("utf-8"), "utf-8")
    return dg.DagsterInstance.from_config(str(folder))


def run_of_the_corpus(instance: dg.DagsterInstance, settings: ExtractionSettings) -> dg.DagsterRun:
    resources = {"gpu": GpuResource(), "chunk_store": ChunkStoreResource(), "results": ResultsResource()}
    definitions = dg.Definitions.merge(build_definitions(settings), dg.Definitions(resources=resources))
    pointer = ModuleCodePointer("lab.definitions", "defs", None)
    code = RepositoryPythonOrigin(sys.executable, pointer, IMAGE, DEFAULT_DAGSTER_ENTRY_POINT, {})
    job = definitions.resolve_implicit_global_asset_job_def()
    origin = JobPythonOrigin(job.name, code)
    return instance.create_run_for_job(job, asset_selection=frozenset([corpus_key(settings)]), job_code_origin=origin)


def pod_environment(container: dict[str, Any], folder: Path, secrets: dict[str, str]) -> dict[str, str]:
    """What a pod would have: the image's, the manifest's, and the machine's where it is none of this project's."""
    named = environment(container)
    given = {name: one["value"] for name, one in named.items() if "value" in one}
    keys = {name: one["valueFrom"]["secretKeyRef"]["key"] for name, one in named.items() if "valueFrom" in one}
    machine = {name: value for name, value in os.environ.items() if not name.startswith(("EXTRACTION_D", "DAGSTER"))}
    path = os.pathsep.join([str(folder), *sys.path])
    given["DAGSTER_HOME"] = str(folder / "pod")  # the launcher says where it would be in the image
    return {
        **machine,
        "PYTHONPATH": path,
        **given,
        **{name: secrets[key] for name, key in keys.items() if key in secrets},
    }


@pytest.mark.slow
def test_the_command_of_a_job_makes_a_corpus_in_a_pod_that_has_no_dagster_yaml(
    settings: ExtractionSettings, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods, secrets = Pods(), {"EXTRACTION_DAGSTER_POSTGRES_URL": os.environ["EXTRACTION_DAGSTER_POSTGRES_URL"]}
    monkeypatch.setattr(kubernetes.config, "load_incluster_config", lambda: None)
    monkeypatch.setattr(kubernetes.client, "BatchV1Api", lambda **_options: pods)
    with instance:
        run = run_of_the_corpus(instance, settings)
        instance.launch_run(run.run_id, None)  # type: ignore[arg-type]
        (container,) = pods.containers
        words, given = container["args"], pod_environment(container, tmp_path, secrets)
        done = processes.run_module(words[0], words[1:], folder=tmp_path, environment=given)
        assert done.returncode == 0, done.stdout + done.stderr
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.SUCCESS
    assert yaml.safe_load((tmp_path / "home" / settings.name / "corpus.json").read_text())
    assert not (tmp_path / "pod" / "dagster.yaml").exists()
