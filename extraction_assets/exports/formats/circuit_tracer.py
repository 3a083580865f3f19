"""What the page of circuit-tracer shows of a transcoder's features: one file a layer, read by ranges, or one a feature.

``features/layer_N.bin`` is, feature after feature, the length of a record in 4 bytes (little-endian) and the record,
JSON compressed by gzip; ``features/index.json.gz`` says where each begins. The page (circuit_tracer 0.5,
frontend/assets) asks for one byte more than a record has, and reads as many as its length says.
"""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from extraction_assets.catalog import FEATURE_DIRECTIONS, SAE_FEATURES
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.exported_rows import Batch
from extraction_assets.exports.formats.shared.example_groups import ExampleGroup, dense_text, example_groups
from extraction_assets.exports.formats.shared.json_text import encode
from extraction_assets.exports.formats.shared.layer_file import folder_of_layer, write_layer
from extraction_assets.exports.formats.shared.neuronpedia_names import layer_number
from extraction_assets.exports.option import Option
from extraction_assets.exports.output import Output
from extraction_assets.exports.source import ExportedFeature, ExportSource

if TYPE_CHECKING:
    import numpy as np

WHAT = (
    "`features/layer_N.bin`, a compressed record a feature, and `features/index.json.gz`, where each begins in each "
    "layer; or `CANTOR.json`, a file a feature. Several SAEs may share a folder, one a layer."
)
READ_BY = "the page of `circuit-tracer`"
VERSION = 2
NEEDS = (FEATURE_DIRECTIONS, SAE_FEATURES)
SEVERAL_SAES = True
OPTIONS: Mapping[str, Option] = {
    "layer": Option("", "the layer's number; by default the first number in the hook"),
    "form": Option("binary", "`binary` is one file a layer, `files` one a feature, named by Cantor's pairing number"),
    "transcoder_id": Option("", "what the records say of their transcoder; by default EXTRACTION/SAE"),
}
FEATURES_IN_PART = 256


def check(source: ExportSource, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    layer_number(source.extraction.hook, options["layer"])
    if options["form"] not in ("binary", "files"):
        raise ExportError(f"form is {options['form']!r}, and may be binary or files")


def inside(source: ExportSource, options: Mapping[str, str]) -> str:
    """The folder of a layer, beside which its files are: readers want those of all layers in one place."""
    layer = layer_number(source.extraction.hook, options["layer"])
    return folder_of_layer(layer) if options["form"] == "binary" else f"layer_{layer}"


def write(source: ExportSource, out: Output, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    layer = layer_number(source.extraction.hook, options["layer"])
    record = _Record(source, options["transcoder_id"] or source.title)
    batches = list(source.batches(FEATURES_IN_PART))

    def records(batch: Batch) -> Iterator[bytes]:
        for feature in source.read(batch.neuron_indices, draws=True):
            yield gzip.compress(record.text(feature).encode(), _LEVEL, mtime=0)
            out.advance()

    if options["form"] == "binary":
        write_layer(out, layer, source.extraction.latent_dim, batches, records)
    else:
        _write_files(source, out, layer, batches, record)


_LEVEL = 4


def _write_files(source: ExportSource, out: Output, layer: int, batches: Sequence[Batch], record: "_Record") -> None:
    for batch in batches:
        names = {index: f"{cantor_number(layer, index)}.json" for index in batch.neuron_indices}
        missing = [index for index, name in names.items() if not out.has(name, 1)]
        for feature in source.read(missing, draws=True):
            out.write_text(names[feature.neuron_index], record.text(feature))
            out.advance()


def cantor_number(layer: int, neuron_index: int) -> int:
    """The one number by which circuit-tracer names a feature of a layer."""
    return (layer + neuron_index) * (layer + neuron_index + 1) // 2 + neuron_index


class _Record:
    """The records of features: ``circuit_tracer.frontend.feature_models.Model`` as JSON."""

    def __init__(self, source: ExportSource, transcoder: str) -> None:
        self._source, self._transcoder = source, transcoder

    @cached_property
    def _histograms(self) -> "np.ndarray | None":
        """The page draws equal widths from act_min to act_max, and octaves cannot be cut into these."""
        from extraction_assets.exports.formats.shared.even_histograms import even_histograms

        stored = self._source.stored_features
        return None if stored is None else even_histograms(self._source, stored)

    def text(self, feature: ExportedFeature) -> str:
        """The record of a feature."""
        row, logits = feature.statistics, feature.logits
        known: dict[str, Any] = {
            "transcoder_id": self._transcoder,
            "index": feature.neuron_index,
            "top_logits": [one.token for one in logits.top] if logits else [],
            "bottom_logits": [one.token for one in logits.bottom] if logits else [],
            "act_min": 0.0,
            "act_max": row.max_activation or 0.0,
            "quantile_values": [],
            "histogram": [] if self._histograms is None else self._histograms[feature.neuron_index].tolist(),
            "activation_frequency": row.token_frequency,
        }
        seen: set[int] = set()
        groups = ",".join(_group(feature, group, seen) for group in example_groups(feature))
        return f'{encode(known)[:-1]},"examples_quantiles":[{groups}]}}'


def _group(feature: ExportedFeature, group: ExampleGroup, seen: set[int]) -> str:
    """``seen`` are the samples of groups before, which the page shows pale. Tokens are copied as they are stored."""
    shown = []
    for one in group.examples:
        sample = feature.sample(one.sample_index)
        repeated = "true" if one.sample_index in seen else "false"
        shown.append(
            f'{{"tokens":{sample.tokens_text},"tokens_acts_list":{dense_text(one, sample.length)},'
            f'"train_token_ind":{one.positions[0]},"is_repeated_datapoint":{repeated}}}'
        )
    seen.update(one.sample_index for one in group.examples)
    return f'{{"quantile_name":{encode(_name(group))},"examples":[{",".join(shown)}]}}'


def _name(group: ExampleGroup) -> str:
    if group.population is None:
        return "Top" if group.kind == "top" else "Random"
    low, high, share = group.population
    counted = "" if share is None else f", {share:.2%} of the samples"
    return f"{low:.3g} to {high:.3g}{counted}"
