"""The manifests are of Kubernetes's schemas, name only what is there, and hold no password."""

import copy
import shutil
from functools import partial
from pathlib import Path

import click
import kubernetes_validate
import pytest
from click.testing import CliRunner
from dagster._cli import create_dagster_cli
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import dagster_webserver
from starlette.testclient import TestClient

from extraction_assets.browser.app import create_app
from extraction_assets.browser.page import Options
from extraction_assets.browser.security import is_allowed_host
from extraction_assets.cli import main
from extraction_assets.database.connect import opened_database
from extraction_assets.host.locations import browser_url, chunk_store_place
from extraction_assets.stores.storage_urls import parse_storage_url
from extraction_assets_tests.deploy.manifests import (
    FOLDERS,
    KUBERNETES,
    VERSIONS,
    Manifest,
    built,
    containers,
    documents,
    environment,
    kustomization,
    written,
)

WRITTEN = written()
BROWSER = WRITTEN["browser.yaml: Deployment extraction-browser"]
INGRESS = WRITTEN["browser.yaml: Ingress extraction-browser"]
WORKLOADS = {name: one for name, one in WRITTEN.items() if list(containers(one))}

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", WRITTEN)
def test_a_manifest_is_of_the_schema(name: str, version: str) -> None:
    kubernetes_validate.validate(WRITTEN[name], version, strict=True)


def test_the_schema_notices_a_field_in_the_wrong_place() -> None:
    wrong = copy.deepcopy(BROWSER)
    wrong["spec"]["template"]["spec"]["containers"][0]["limits"] = {"memory": "1Gi"}
    with pytest.raises(kubernetes_validate.ValidationError, match="limits"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@needs_kubectl
@pytest.mark.parametrize("folder", FOLDERS)
def test_what_kustomize_makes_of_a_folder_is_of_the_schema(folder: str) -> None:
    for manifest in built(folder):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
        assert manifest["metadata"]["namespace"] == "extraction"


@needs_kubectl
def test_runs_have_the_image_of_their_code_location() -> None:
    code = next(one for made in built("dagster") for one in containers(made) if one["name"] == "code")
    (image,) = kustomization("dagster")["images"]
    assert code["image"] == f"{image['newName']}:{image['newTag']}"
    assert environment(code)["DAGSTER_CURRENT_IMAGE"]["value"] == code["image"]


def test_both_kustomizations_name_one_image() -> None:
    assert kustomization("dagster")["images"] == kustomization("extraction")["images"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_takes_passwords_from_keys_that_the_secret_has(name: str) -> None:
    (secret,) = documents(KUBERNETES / "secrets.example.yaml")
    for container in containers(WORKLOADS[name]):
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            assert reference is None or reference["name"] == secret["metadata"]["name"]
            assert reference is None or reference["key"] in secret["stringData"]
            assert "CHANGE-ME" not in str(variable)


def test_dagster_is_given_the_driver_that_it_needs() -> None:
    (secret,) = documents(KUBERNETES / "secrets.example.yaml")
    assert secret["stringData"]["EXTRACTION_DAGSTER_POSTGRES_URL"].startswith("postgresql+psycopg2://")


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_runs_without_privileges(name: str) -> None:
    assert WORKLOADS[name]["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    for container in containers(WORKLOADS[name]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_mounts_the_volumes_that_it_has(name: str) -> None:
    spec = WORKLOADS[name]["spec"]
    volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    mounted = {mount["name"] for one in containers(WORKLOADS[name]) for mount in one["volumeMounts"]}
    assert mounted == volumes


@pytest.mark.parametrize("name", [name for name, one in WRITTEN.items() if one["kind"] == "Service"])
def test_a_service_leads_to_a_port_of_a_pod(name: str) -> None:
    spec = WRITTEN[name]["spec"]
    pods = [one["spec"]["template"] for one in WORKLOADS.values()]
    led_to = [pod for pod in pods if spec["selector"].items() <= pod["metadata"]["labels"].items()]
    ports = {port["name"] for pod in led_to for one in pod["spec"]["containers"] for port in one["ports"]}
    assert {port["targetPort"] if "targetPort" in port else port["name"] for port in spec["ports"]} <= ports


def commands() -> list[list[str]]:
    """The commands of this package that containers are started with."""
    starts = [one.get("args", []) for workload in WORKLOADS.values() for one in containers(workload)]
    return [words[1:] for words in starts if words[:1] == ["extraction-assets"]]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_container_is_started_with_options_that_exist(words: list[str]) -> None:
    done = CliRunner().invoke(main, [*words, "--help"])
    assert done.exit_code == 0
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert f"{option} " in done.output


PROGRAMS: dict[str, click.Command] = {
    "dagster": create_dagster_cli(),
    "dagster-daemon": create_dagster_daemon_cli(),
    "dagster-webserver": dagster_webserver,
}


def commands_of_dagster() -> list[list[str]]:
    """What containers and their probes start of Dagster."""
    ours = [one for workload in WORKLOADS.values() for one in containers(workload)]
    kinds = ("readinessProbe", "livenessProbe")
    probes = [one.get(kind, {}).get("exec", {}).get("command", []) for one in ours for kind in kinds]
    return [words for words in [*(one.get("args", []) for one in ours), *probes] if words and words[0] in PROGRAMS]


@pytest.mark.parametrize("words", commands_of_dagster(), ids=" ".join)
def test_a_command_of_dagster_has_the_options_that_it_is_given(words: list[str]) -> None:
    command: click.Command = PROGRAMS[words[0]]
    for word in words[1:]:
        if isinstance(command, click.Group):
            command = command.commands[word]
        elif word.startswith("-"):
            assert word.partition("=")[0] in {option for one in command.params for option in one.opts}


def allowed_hosts() -> list[str]:
    (container,) = containers(BROWSER)
    return [word.partition("=")[2] for word in container["args"] if word.startswith("--allow-host=")]


def test_the_browser_answers_by_every_name_of_its_ingress() -> None:
    names = [rule["host"] for rule in INGRESS["spec"]["rules"]]
    assert names
    assert [name for name in names if not is_allowed_host(name, allowed_hosts())] == []
    assert INGRESS["spec"]["tls"][0]["hosts"] == names


def test_the_browser_refuses_other_names_and_answers_probes() -> None:
    assert not is_allowed_host("elsewhere.example.com", allowed_hosts())
    assert is_allowed_host("10.244.3.17:3080", allowed_hosts())  # the kubelet names the pod's address


def test_people_outside_can_only_read() -> None:
    (container,) = containers(BROWSER)
    assert "--read-only" in container["args"]
    others = [one for name, one in WRITTEN.items() if one["kind"] == "Ingress" and one is not INGRESS]
    assert others == []


def test_the_pages_answer_behind_the_ingress(tmp_path: Path) -> None:
    read = partial(opened_database, f"sqlite:///{tmp_path}/results.sqlite")
    with TestClient(create_app(read, Options(True, tuple(allowed_hosts()), None), None)) as client:
        answers = {host: client.get("/", headers={"host": host}).status_code for host in ("features.example.com", "x")}
    assert answers == {"features.example.com": 200, "x": 400}


def test_the_pool_limit_is_set_from_the_instance_of_the_cluster() -> None:
    (job,) = (one for one in WRITTEN.values() if one["kind"] == "Job")
    (container,) = containers(job)
    (mount,) = container["volumeMounts"]
    assert container["args"][:3] == ["extraction-assets", "setup", "--gpus"]
    assert int(container["args"][3]) > 0
    assert mount["mountPath"] == "/opt/dagster/dagster_home/dagster.yaml"


def test_the_settings_are_ones_that_the_package_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    (settings,) = kustomization("extraction")["configMapGenerator"]
    values = dict(literal.split("=", 1) for literal in settings["literals"])
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert parse_storage_url(str(chunk_store_place())).scheme == "s3"
    assert browser_url() == f"https://{INGRESS['spec']['rules'][0]['host']}"


def names(kind: str, manifests: list[Manifest]) -> set[str]:
    return {one["metadata"]["name"] for one in manifests if one["kind"] == kind}


@needs_kubectl
def test_config_maps_and_service_accounts_that_pods_name_are_made() -> None:
    manifests = built("dagster")
    pods = [one["spec"]["template"]["spec"] for one in manifests if list(containers(one))]
    maps = {volume["configMap"]["name"] for pod in pods for volume in pod["volumes"] if "configMap" in volume}
    accounts = {pod["serviceAccountName"] for pod in pods if "serviceAccountName" in pod}
    assert maps <= names("ConfigMap", manifests)
    assert accounts <= names("ServiceAccount", manifests)
