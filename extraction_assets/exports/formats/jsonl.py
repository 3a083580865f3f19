"""One feature a line of JSON, with all that is known of it: ``batch-N.jsonl.gz`` and the schema of a line."""

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from extraction_assets.catalog import FEATURE_DIRECTIONS, FEATURE_RELATIONS
from extraction_assets.engine.statistics.registry import COLUMNS, STATISTICS, Statistic, StatisticColumn
from extraction_assets.engine.statistics.rows_and_sentences import were_drawn
from extraction_assets.exports.exported_rows import Batch, ExportedDraw, ExportedExample, TopToken
from extraction_assets.exports.formats.shared.json_text import encode, numbers, text
from extraction_assets.exports.formats.shared.line_files import write_lines
from extraction_assets.exports.option import Option
from extraction_assets.exports.output import Output
from extraction_assets.exports.source import ExportedFeature, ExportSource

WHAT = "`batch-N.jsonl.gz`, one feature a line with all that is known of it, and `schema.json`, the schema of a line."
READ_BY = "any program; pandas and `datasets` as they are"
VERSION = 2
NEEDS = (FEATURE_RELATIONS, FEATURE_DIRECTIONS)
SEVERAL_SAES = False
OPTIONS: Mapping[str, Option] = {}
FEATURES_IN_FILE = 1024


def schema() -> dict[str, Any]:
    """The JSON Schema of a line: ``schemas/jsonl.json`` with the statistics behind what names the feature."""
    found: dict[str, Any] = json.loads(files("extraction_assets.exports").joinpath("schemas/jsonl.json").read_text())
    statistics = {column.name: _schema_of(one, column) for one in STATISTICS for column in one.columns}
    named, others = found["required"][:3], found["required"][3:]
    properties = found["properties"]
    found["required"] = [*named, *statistics, *others]
    found["properties"] = {name: statistics.get(name) or properties[name] for name in found["required"]}
    return found


def _schema_of(statistic: Statistic, column: StatisticColumn) -> dict[str, Any]:
    numbers = {"type": "array", "items": {"type": "integer"}, "minItems": statistic.size, "maxItems": statistic.size}
    found: dict[str, Any] = numbers if column.type == "integers" else {"type": column.type}
    found["description"] = column.meaning
    return {"anyOf": [found, {"type": "null"}]} if column.nullable or statistic.added_later else found


def check(source: ExportSource, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``: there is nothing to refuse."""


def inside(source: ExportSource, options: Mapping[str, str]) -> str:
    """See ``ExportFormat``: a folder holds one SAE."""
    return ""


def write(source: ExportSource, out: Output, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    out.write_text("schema.json", json.dumps(schema(), indent=1) + "\n")
    for batch in source.batches(FEATURES_IN_FILE):
        name = f"batch-{batch.number}.jsonl.gz"
        if out.has(name, len(batch.neuron_indices)):
            continue
        write_lines(out, name, _lines(source, batch, out))


def _lines(source: ExportSource, batch: Batch, out: Output) -> Iterator[str]:
    for feature in source.read(batch.neuron_indices, draws=True):
        yield feature_line(source, feature)
        out.advance()


def feature_line(source: ExportSource, feature: ExportedFeature) -> str:
    """The line of a feature, with its end. Tokens of samples are copied as the JSON text that is stored."""
    known = encode({**_identity(source, feature), **_known(source, feature)})
    examples = ",".join(_example(feature, one) for one in feature.examples)
    draws = ",".join(_example(feature, one, f'"interval":{one.interval},') for one in feature.draws)
    drawn = f"[{draws}]" if draws or were_drawn(feature.statistics) else "null"
    return f'{known[:-1]},"examples":[{examples}],"draws":{drawn}}}\n'


def _identity(source: ExportSource, feature: ExportedFeature) -> dict[str, Any]:
    extraction = source.extraction
    return {"extraction": extraction.name, "sae": extraction.sae, "neuron_index": feature.neuron_index}


def _known(source: ExportSource, feature: ExportedFeature) -> dict[str, Any]:
    """All but examples and draws. What was not computed is null, what was and is empty is not; of draws too."""
    row, label, logits = feature.statistics, feature.label, feature.logits
    found: dict[str, Any] = {column.name: getattr(row, column.name) for column in COLUMNS}
    found["label"] = None if label is None else {"label": label.label, "mark": label.mark, "note": label.note}
    counted = source.relations is not None
    found["flags"] = feature.flags if counted else None
    for name, place in (("top_tokens", "firing"), ("next_tokens", "next")):
        found[name] = [_token(one) for one in feature.top_tokens(place)] if counted else None
    near = feature.neighbours.neighbours if feature.neighbours else []
    found["neighbours"] = [one._asdict() for one in near] if counted else None
    found["logits"] = None if logits is None else logits._asdict() | _tokens(logits)
    found["nearest"] = [one._asdict() for one in feature.nearest] if source.directions is not None else None
    return found


def _token(one: TopToken) -> dict[str, Any]:
    return {
        "token_id": one.token_id,
        "token": one.token,
        "count": one.firings,
        "mean_activation": one.mean_activation,
        "share": one.share,
    }


def _tokens(logits: Any) -> dict[str, Any]:
    return {name: [one._asdict() for one in getattr(logits, name)] for name in ("top", "bottom")}


def _example(feature: ExportedFeature, one: ExportedExample | ExportedDraw, leading: str = "") -> str:
    """An object written by hand, for there are millions; ``leading`` are fields before the others."""
    sample = feature.sample(one.sample_index)
    return (
        f'{{{leading}"sample_index":{one.sample_index},"document_id":{text(sample.document_id)},'
        f'"first_token":{sample.first_token},"max_activation":{one.max_activation!r},'
        f'"max_token":{text(one.max_token)},"positions":{numbers(one.positions)},'
        f'"activations":{numbers(one.activations)},'
        f'"tokens":{sample.tokens_text},"token_ids":{sample.token_ids_text}}}'
    )
