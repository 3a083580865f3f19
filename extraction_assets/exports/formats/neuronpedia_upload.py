"""What ``POST /api/feature/upload-batch`` of neuronpedia.org takes: one request a file.

The server's limits (apps/webapp/app/api/feature/upload-batch/route.tsx) are ``schemas/neuronpedia_upload.json``: a
request has 1 to 128 features, a feature at least one example, an example 1 to 1,024 tokens, none of them empty.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from extraction_assets.catalog import FEATURE_DIRECTIONS
from extraction_assets.database.queries.directions import TokenLogit
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.exported_rows import Batch
from extraction_assets.exports.formats.shared.example_groups import (
    ExampleGroup,
    OneExample,
    dense,
    example_groups,
    once_each,
    population_of_example,
)
from extraction_assets.exports.formats.shared.json_text import encode
from extraction_assets.exports.formats.shared.neuronpedia_names import NAMES, neuronpedia_names
from extraction_assets.exports.option import Option
from extraction_assets.exports.output import Output
from extraction_assets.exports.source import ExportedFeature, ExportSource

WHAT = "`batch-N.json`, the requests that upload features, 1 to 128 each; without features that have no example."
READ_BY = "`neuronpedia.requests.feature_request` of the package `neuronpedia`, or any client of the API"
VERSION = 1
NEEDS = (FEATURE_DIRECTIONS,)
SEVERAL_SAES = False
OPTIONS: Mapping[str, Option] = {
    **NAMES,
    "examples": Option("20", "the strongest examples of a feature; those of its intervals come with them"),
    "features_in_file": Option("128", "features of a request"),
}
MOST_FEATURES, MOST_TOKENS, MOST_LOGITS = 128, 1024, 20
EMPTY = "∅"
"""In place of a token that shows as nothing, which the server refuses."""


def schema() -> dict[str, Any]:
    """The server's limits as a JSON Schema of a request."""
    text = files("extraction_assets.exports").joinpath("schemas/neuronpedia_upload.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def check(source: ExportSource, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    neuronpedia_names(source, options)
    _number(options, "examples")
    if (size := _number(options, "features_in_file")) > MOST_FEATURES:
        raise ExportError(f"features_in_file is {size}, but the server takes {MOST_FEATURES} at most")


def inside(source: ExportSource, options: Mapping[str, str]) -> str:
    """See ``ExportFormat``: a folder holds one SAE."""
    return ""


def write(source: ExportSource, out: Output, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    names = neuronpedia_names(source, options)
    most, size = (_number(options, name) for name in ("examples", "features_in_file"))
    for batch in source.batches(size):
        name = f"batch-{batch.number}.json"
        if out.has(name, len(batch.neuron_indices)):
            continue
        found = _features(source, batch, most, out)
        if found:
            request = {"modelId": names.model_id, "source": names.source_id, "features": found}
            out.write_text(name, encode(request) + "\n")


def _features(source: ExportSource, batch: Batch, most: int, out: Output) -> list[dict[str, Any]]:
    found = []
    for feature in source.read(batch.neuron_indices, draws=True):
        activations = [_activation(feature, one) for one in _chosen(feature, most)]
        if activations:
            found.append(_feature(feature, activations))
        out.advance()
    return found


def _chosen(feature: ExportedFeature, most: int) -> list[OneExample]:
    """The strongest examples, and what was drawn from intervals, each sample once, strongest first."""
    groups = [_shortened(group, most) for group in example_groups(feature) if group.kind != "random"]
    return sorted(once_each(groups).values(), key=lambda one: (-one.max_activation, one.sample_index))


def _shortened(group: ExampleGroup, most: int) -> ExampleGroup:
    return group._replace(examples=group.examples[:most]) if group.kind == "top" else group


def _feature(feature: ExportedFeature, activations: list[dict[str, Any]]) -> dict[str, Any]:
    logits, label = feature.logits, feature.label
    named = label is not None and label.label
    return {
        "index": feature.neuron_index,
        "density": feature.statistics.token_frequency,
        "activations": activations,
        "explanations": [{"text": label.label, "methodName": None, "modelName": None}] if label and named else [],
        "topLogits": _logits(logits.top) if logits else None,
        "bottomLogits": _logits(logits.bottom) if logits else None,
    }


def _logits(tokens: list[TokenLogit]) -> list[dict[str, Any]]:
    return [{"token": one.token or EMPTY, "value": one.logit} for one in tokens[:MOST_LOGITS]]


def _activation(feature: ExportedFeature, one: OneExample) -> dict[str, Any]:
    """An example with as many tokens around its strongest one as the server takes."""
    sample = feature.sample(one.sample_index)
    first = max(0, min(one.positions[0] - MOST_TOKENS // 2, sample.length - MOST_TOKENS))
    population = population_of_example(feature, one)
    return {
        "tokens": [token or EMPTY for token in sample.tokens()[first : first + MOST_TOKENS]],
        "values": dense(one, sample.length)[first : first + MOST_TOKENS],
        "quantileMax": population.high,
        "quantileMin": population.low,
        "quantileFraction": population.share,
    }


def _number(options: Mapping[str, str], name: str) -> int:
    text = options[name]
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**6):
        raise ExportError(f"{name} is {text!r}, which is not a number from 1 on")
    return int(text)
