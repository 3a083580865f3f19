"""Values for Dagster's chart: fields that it has, and the names of what stands beside it."""

import copy
import json
import os
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from extraction_assets_tests.deploy.manifests import KUBERNETES, VERSIONS, documents, kustomization
from extraction_assets_tests.deploy.values_of_chart import NAMESPACE, RELEASE

VALUES: dict[str, Any] = yaml.safe_load((KUBERNETES / "values.yaml").read_text("utf-8"))
CHART = os.environ.get("DAGSTER_CHART")
"""The chart's folder or archive, as `helm pull dagster --repo https://dagster-io.github.io/helm` makes it."""


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    """Checks values; what is Kubernetes's in them by the definitions of kubernetes-validate."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSIONS[-1]}.0-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text("utf-8"))
    kubernetes = Resource.from_contents(definitions, default_specification=DRAFT202012)
    registry = Registry().with_resource("kubernetes:_definitions.json", kubernetes)
    values = json.loads((KUBERNETES / "values_used.schema.json").read_text("utf-8"))
    return jsonschema.Draft202012Validator(values, registry=registry)


def test_the_values_are_of_the_schema(schema: jsonschema.Draft202012Validator) -> None:
    assert [f"{error.json_path}: {error.message}" for error in schema.iter_errors(VALUES)] == []


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("runLauncher", "type"), "K8sLauncher"),
        (("dagsterDaemon", "runMonitoring", "start_timeout_seconds"), 60),
        (("dagster-user-deployments", "deployments", 0, "resources", "limits"), "4Gi"),
        (("dagster-user-deployments", "deployments", 0, "env", 0, "valueFrom", "secret"), {}),
        (("runLauncher", "config", "k8sRunLauncher", "runK8sConfig", "container_config"), {}),
        (("dagsterWebserver", "service", "port"), "http"),
    ],
    ids=str,
)
def test_the_schema_notices_a_wrong_value(
    schema: jsonschema.Draft202012Validator, place: tuple[str | int, ...], wrong: object
) -> None:
    changed = copy.deepcopy(VALUES)
    block: Any = changed
    for key in place[:-1]:
        block = block[key]
    block[place[-1]] = wrong
    assert not schema.is_valid(changed)


def images() -> set[str]:
    given = [VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], *VALUES["dagster-user-deployments"]["deployments"]]
    return {f"{one['image']['repository']}:{one['image']['tag']}" for one in given}


def test_one_image_everywhere() -> None:
    (image,) = kustomization("extraction")["images"]
    assert images() == {f"{image['newName']}:{image['newTag']}"}


def test_the_names_beside_the_chart_are_those_that_it_uses() -> None:
    (secret,) = documents(KUBERNETES / "secrets.example.yaml")
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    assert VALUES["global"]["postgresqlSecretName"] == secret["metadata"]["name"]
    assert "postgresql-password" in secret["stringData"]
    assert [one["name"] for one in deployment["envConfigMaps"]] == ["extraction-settings"]
    references = [one["valueFrom"]["secretKeyRef"] for one in deployment["env"]]
    assert {one["key"] for one in references} <= secret["stringData"].keys()


def test_a_run_is_not_given_the_resources_of_its_code_location() -> None:
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": False}


def test_the_chart_is_of_the_release_that_the_package_is_tested_with() -> None:
    constraints = (KUBERNETES.parents[1] / "constraints.txt").read_text("utf-8").splitlines()
    release = next(line.partition("==")[2] for line in constraints if line.startswith("dagster=="))
    assert f"--version {release} " in (KUBERNETES / "values.yaml").read_text("utf-8")
    assert f"dagster-k8s==0.{int(release.split('.')[1]) + 16}.{release.split('.')[2]}" in constraints


@pytest.mark.skipif(not (CHART and shutil.which("helm")), reason="needs helm, and DAGSTER_CHART with the chart's place")
def test_the_chart_takes_the_values_and_renders_manifests_of_the_schema() -> None:
    command = ["helm", "template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    command += ["--values", str(KUBERNETES / "values.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    manifests = [one for one in yaml.safe_load_all(done.stdout) if one]
    assert f"{RELEASE}-instance" in {one["metadata"]["name"] for one in manifests if one["kind"] == "ConfigMap"}
    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSIONS[-1])
