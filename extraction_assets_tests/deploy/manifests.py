"""The manifests of deploy/kubernetes/, as the tests read them."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
FOLDERS = ("extraction", "dagster", "postgresql")
"""Folders with a kustomization."""

VERSIONS = ("1.30", "1.37")
"""The oldest release of Kubernetes that the manifests are written for, and the newest whose schemas are installed."""

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    """The manifests in one file."""
    return [one for one in yaml.safe_load_all(path.read_text("utf-8")) if one]


def written() -> dict[str, Manifest]:
    """Every manifest that stands in a file, by file, kind and name."""
    files = [KUBERNETES / "secrets.example.yaml"]
    for folder in FOLDERS:
        files += [KUBERNETES / folder / name for name in kustomization(folder)["resources"] if name.endswith(".yaml")]
    found = [(path, manifest) for path in files for manifest in documents(path)]
    return {f"{path.name}: {one['kind']} {one['metadata']['name']}": one for path, one in found}


def kustomization(folder: str) -> Mapping[str, Any]:
    """What kustomization.yaml of a folder says."""
    return yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text("utf-8"))


def built(folder: str) -> list[Manifest]:
    """What `kubectl apply -k` sends of a folder; needs kubectl, and no cluster."""
    command = [str(shutil.which("kubectl")), "kustomize", str(KUBERNETES / folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return list(yaml.safe_load_all(done.stdout))


def containers(manifest: Manifest) -> Iterator[Manifest]:
    """The containers of a workload; none of anything else."""
    yield from manifest.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])


def environment(container: Manifest) -> dict[str, Manifest]:
    """The variables that a container is given one by one, in the spelling of a manifest."""
    return {variable["name"]: variable for variable in container.get("env", [])}
