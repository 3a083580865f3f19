"""Neuronpedia's public data sets: what its importer copies into the tables of its database, by the names of columns.

Its importer (apps/webapp/lib/db/import.ts) takes the columns of a file's first line for all lines, and leaves out rows
whose key is there already: ids follow from what they name, so that a second import changes nothing. A batch's
``features`` is written last, and says that the batch is whole.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from extraction_assets.catalog import FEATURE_DIRECTIONS
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.exported_rows import Batch
from extraction_assets.exports.formats.shared.example_groups import (
    ExampleGroup,
    OneExample,
    dense_text,
    example_groups,
    highest_of,
)
from extraction_assets.exports.formats.shared.histograms import centres, octaves
from extraction_assets.exports.formats.shared.json_text import encode, number_list
from extraction_assets.exports.formats.shared.line_files import write_lines
from extraction_assets.exports.formats.shared.neuronpedia_names import NAMES, NeuronpediaNames, neuronpedia_names
from extraction_assets.exports.formats.shared.neuronpedia_tables import metadata_rows, shown_source
from extraction_assets.exports.option import Option
from extraction_assets.exports.output import Output
from extraction_assets.exports.source import ExportedFeature, ExportSource

WHAT = (
    "`MODEL/SOURCE/`: `release`, `model`, `sourceset` and `source` as `.jsonl`; `features`, `activations` and "
    "`explanations` as `batch-N.jsonl.gz` of 1,024 features."
)
READ_BY = "the importer of a Neuronpedia of your own"
VERSION = 2
NEEDS = (FEATURE_DIRECTIONS, "checkpoint")
SEVERAL_SAES = False
OPTIONS: Mapping[str, Option] = {
    **NAMES,
    "release": Option("", "the release's name; by default the extraction's"),
    "creator_id": Option(
        "clkht01d40000jv08hvalcvly", "the user that all rows belong to, in a new Neuronpedia the first"
    ),
    "creator_name": Option("extraction-assets", "who made the SAE, as it is shown"),
    "hook_name": Option("", "TransformerLens's name of the hook, for steering; by default the hook's name here"),
    "vectors": Option("yes", "`no` leaves out the decoder rows"),
}
FEATURES_IN_FILE = 1024


def check(source: ExportSource, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    neuronpedia_names(source, options)
    if options["vectors"] not in ("yes", "no"):
        raise ExportError(f"vectors is {options['vectors']!r}, and may be yes or no")


def inside(source: ExportSource, options: Mapping[str, str]) -> str:
    """See ``ExportFormat``: a folder holds one SAE."""
    return ""


def write(source: ExportSource, out: Output, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    names = neuronpedia_names(source, options)
    folder = f"{names.model_id}/{names.source_id}"
    for name, row in metadata_rows(source, names, options).items():
        out.write_text(f"{folder}/{name}.jsonl", encode(row) + "\n")
    lines = _Lines(source, names, options)
    for batch in source.batches(FEATURES_IN_FILE):
        file = f"batch-{batch.number}.jsonl.gz"
        if out.has(f"{folder}/features/{file}", len(batch.neuron_indices)):
            continue
        write_lines(out, f"{folder}/explanations/{file}", lines.explanations(batch))
        write_lines(out, f"{folder}/activations/{file}", lines.activations(batch, out))
        write_lines(out, f"{folder}/features/{file}", lines.features(batch))


class _Lines:
    """The lines of the three tables under one set of names."""

    def __init__(self, source: ExportSource, names: NeuronpediaNames, options: Mapping[str, str]) -> None:
        self._source, self._names, self._options = source, names, options
        self._of_source = {"modelId": names.model_id, "layer": names.source_id}
        same = {**self._of_source, "creatorId": options["creator_id"], "dataSource": shown_source(source.corpus.source)}
        self._same = f"{encode(same)[1:-1]},"
        self._decoder = source.decoder.rows if options["vectors"] != "no" else None

    def features(self, batch: Batch) -> Iterator[str]:
        """One line a feature, dead ones too."""
        for feature in self._source.read(batch.neuron_indices):
            known = encode({**self._of_source, **self._feature(feature)})
            yield f'{known[:-1]},"vector":{self._vector(feature.neuron_index)}}}\n'

    def explanations(self, batch: Batch) -> Iterator[str]:
        """What people call a feature, as its explanation."""
        for feature in self._source.read(batch.neuron_indices):
            if feature.label is not None and feature.label.label:
                index = str(feature.neuron_index)
                row = {"id": self._id("explanation", index), **self._of_source, "index": index}
                row |= {"authorId": self._options["creator_id"], "description": feature.label.label}
                yield encode({**row, "notes": feature.label.note or None}) + "\n"

    def activations(self, batch: Batch, out: Output) -> Iterator[str]:
        """One line an example: the strongest, then those of each interval."""
        for feature in self._source.read(batch.neuron_indices, draws=True):
            for group in example_groups(feature):
                if group.kind != "random":
                    bounds = _bounds(feature, group)
                    for one in group.examples:
                        yield self._activation(feature, group.kind, bounds, one)
            out.advance()

    def _feature(self, feature: ExportedFeature) -> dict[str, Any]:
        row, logits = feature.statistics, feature.logits
        values, heights = octaves(row.histogram)
        nearest = [one for one in feature.nearest if one.sae == self._source.extraction.sae]
        has_vector = self._decoder is not None
        return {
            "index": str(feature.neuron_index),
            "sourceSetName": self._names.source_set,
            "creatorId": self._options["creator_id"],
            "maxActApprox": row.max_activation or 0,
            "frac_nonzero": row.token_frequency,
            "freq_hist_data_bar_heights": heights,
            "freq_hist_data_bar_values": values,
            "logits_hist_data_bar_heights": logits.histogram if logits else [],
            "logits_hist_data_bar_values": centres(logits) if logits else [],
            "pos_str": [one.token for one in logits.top] if logits else [],
            "pos_values": [one.logit for one in logits.top] if logits else [],
            "neg_str": [one.token for one in logits.bottom] if logits else [],
            "neg_values": [one.logit for one in logits.bottom] if logits else [],
            "topkCosSimIndices": [one.neuron_index for one in nearest],
            "topkCosSimValues": [one.cosine for one in nearest],
            **{f"correlated_neurons_{name}": [] for name in ("indices", "pearson", "l1")},  # none are computed
            "hookName": self._options["hook_name"] or self._source.extraction.hook,
            "hasVector": has_vector,
            "vectorDefaultSteerStrength": row.max_activation if has_vector else None,
        }

    def _vector(self, neuron_index: int) -> str:
        return "[]" if self._decoder is None else number_list(self._decoder[neuron_index])

    def _activation(self, feature: ExportedFeature, kind: str, bounds: str, one: OneExample) -> str:
        """A line written by hand, for there are millions. Tokens are copied as the JSON text that is stored."""
        sample, index = feature.sample(one.sample_index), str(feature.neuron_index)
        length = sample.length
        least = 0 if len(one.positions) < length else min(one.activations)
        return (
            f'{{"id":"{self._id("activation", index, kind, str(one.sample_index))}",{self._same}"index":"{index}",'
            f'"maxValue":{one.max_activation!r},"minValue":{least!r},"maxValueTokenIndex":{one.positions[0]},'
            f'"dataIndex":"{one.sample_index}",{bounds},'
            f'"tokens":{sample.tokens_text},"values":{dense_text(one, length)}}}\n'
        )

    def _id(self, *parts: str) -> str:
        """As long as Neuronpedia's own, and the same whenever it is made."""
        named = "/".join((self._names.model_id, self._names.source_id, *parts))
        return "c" + hashlib.sha256(named.encode()).hexdigest()[:24]


def _bounds(feature: ExportedFeature, group: ExampleGroup) -> str:
    """Fields of all examples of a group. The strongest have -1 and the maximum, as in SAEDashboard's converter."""
    low, high, share = (-1, highest_of(feature), -1) if group.population is None else group.population
    return f'"binMin":{low!r},"binMax":{encode(high)},"binContains":{encode(share)}'
