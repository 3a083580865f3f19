"""The strongest examples of features as each format's reader gives them: what every export has to agree on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from extraction_assets.exports.formats.neuronpedia_upload import EMPTY, schema
from extraction_assets_tests.exports import test_circuit_tracer, test_sae_dashboard
from extraction_assets_tests.exports.readers import read_by
from extraction_assets_tests.exports.schemas import errors_of
from extraction_assets_tests.exports.test_neuronpedia_upload import requests_of
from extraction_assets_tests.exports.written import json_lines

Strongest = dict[int, list[tuple[list[str], list[float]]]]
"""neuron_index -> tokens of each example, and the float32 on each of them."""


def _values(values: list[float]) -> list[float]:
    found: list[float] = np.float32(values).tolist()
    return found


def _of_jsonl(folder: Path) -> Strongest:
    found: Strongest = {}
    for line in [line for path in folder.glob("*.jsonl.gz") for line in json_lines(path)]:
        listed = found[line["neuron_index"]] = []
        for one in line["examples"]:
            firings = dict(zip(one["positions"], one["activations"], strict=True))
            listed.append((one["tokens"], _values([firings.get(at, 0) for at in range(len(one["tokens"]))])))
    return found


def _of_parquet(folder: Path) -> Strongest:
    found: Strongest = {row["neuron_index"]: [] for row in pq.read_table(folder / "features.parquet").to_pylist()}
    for row in pq.read_table(folder / "examples.parquet").to_pylist():
        found[row["neuron_index"]].append((row["tokens"], row["values"]))
    return found


def _of_neuronpedia(folder: Path) -> Strongest:
    (features,) = folder.glob("*/*/features/batch-0.jsonl.gz")
    found: Strongest = {int(line["index"]): [] for line in json_lines(features)}
    for line in json_lines(features.parents[1] / "activations" / features.name):
        if line["binMin"] == -1:
            found[int(line["index"])].append((line["tokens"], _values(line["values"])))
    return found


def _of_upload(folder: Path) -> Strongest:
    requests = requests_of(folder)
    assert errors_of(schema(), requests, folder) == []
    return {
        feature["index"]: [
            (["" if token == EMPTY else token for token in one["tokens"]], _values(one["values"]))
            for one in feature["activations"]
        ]
        for request in requests
        for feature in request["features"]
    }


def _of_circuit_tracer(folder: Path) -> Strongest:
    records = [one for one in test_circuit_tracer.by_ranges(folder, layer=1) if one is not None]
    (folder / "records.json").write_text(json.dumps(records), "utf-8")
    found: Strongest = {}
    for record in read_by(test_circuit_tracer.READ, folder / "records.json", package="circuit_tracer"):
        groups = {group["quantile_name"]: group["examples"] for group in record["examples_quantiles"]}
        top: list[dict[str, Any]] = groups.get("Top", [])
        found[record["index"]] = [(one["tokens"], _values(one["tokens_acts_list"])) for one in top]
    return found


def _of_dashboard(folder: Path) -> Strongest:
    read = read_by(test_sae_dashboard.READ, folder / "batch-0.json", package="sae_dashboard")
    return {
        feature["feature_index"]: [
            (one["tokens"], _values(one["values"])) for one in feature["activations"] if one["bin_min"] == -1
        ]
        for feature in read["features"]
    }


READERS: dict[str, Callable[[Path], Strongest]] = {
    "jsonl": _of_jsonl,
    "parquet": _of_parquet,
    "neuronpedia": _of_neuronpedia,
    "neuronpedia-upload": _of_upload,
    "circuit-tracer": _of_circuit_tracer,
    "sae-dashboard": _of_dashboard,
}
