"""Writes ``saes.json`` from the registry of the installed SAELens: ``make published``."""

import json
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import yaml

from extraction_assets.engine.saes.published import REGISTRY


def registry_of_sae_lens() -> dict[str, Any]:
    """What ``saes.json`` holds, from the SAELens that is installed here."""
    text = files("sae_lens").joinpath("pretrained_saes.yaml").read_text(encoding="utf-8")
    releases = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {
        "sae_lens": version("sae-lens"),
        "releases": {name: _release(release) for name, release in releases.items()},
    }


def _release(release: dict[str, Any]) -> dict[str, Any]:
    loader = release.get("conversion_func") or "sae_lens"
    return {
        "loader": loader,
        "model": release["model"],
        "repository": release["repo_id"],
        "overrides": release.get("config_overrides") or {},
        "saes": {sae["id"]: _sae(sae, loader) for sae in release["saes"]},
    }


def _sae(sae: dict[str, Any], loader: str) -> list[Any]:
    path = str(sae["path"])
    if loader == "mntss_clt_layer_transcoder":  # a layer's number there, the file of its encoder here
        path = f"W_enc_{path}.safetensors"
    named = [sae.get(name) for name in ("l0", "variance_explained", "neuronpedia", "norm_scaling_factor")]
    row = [None if path == sae["id"] else path, *named]
    while row and row[-1] is None:
        row.pop()
    return row


def main() -> None:
    """Writes the file, one SAE a line, so that a new version shows in a diff what it adds."""
    made = registry_of_sae_lens()
    lines = []
    for name, release in made["releases"].items():
        head = {key: value for key, value in release.items() if key != "saes"}
        saes = ",\n".join(f"{json.dumps(sae)}: {json.dumps(row)}" for sae, row in release["saes"].items())
        lines.append(f'{json.dumps(name)}: {json.dumps(head)[:-1]}, "saes": {{\n{saes}}}}}')
    text = f'{{"sae_lens": {json.dumps(made["sae_lens"])}, "releases": {{\n' + ",\n".join(lines) + "}}\n"
    temporary = REGISTRY.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(REGISTRY)


if __name__ == "__main__":
    main()
