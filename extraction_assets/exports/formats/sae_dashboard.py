"""Files of SAEDashboard's Neuronpedia runner (sae-dashboard 0.8, ``neuronpedia_dashboard.py``): what it computes from a
model, from stored results.

Numbers are not rounded, which the runner does. What is not in the results stays empty, as in a runner without these
tables: correlated and aligned neurons, correlated features, heads.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from extraction_assets.catalog import FEATURE_DIRECTIONS
from extraction_assets.exports.exported_rows import Batch
from extraction_assets.exports.formats.shared.example_groups import (
    ExampleGroup,
    OneExample,
    dense_text,
    example_groups,
    highest_of,
)
from extraction_assets.exports.formats.shared.histograms import centres, octaves
from extraction_assets.exports.formats.shared.json_text import encode
from extraction_assets.exports.formats.shared.neuronpedia_names import NAMES, neuronpedia_names
from extraction_assets.exports.formats.shared.neuronpedia_tables import shown_source
from extraction_assets.exports.option import Option
from extraction_assets.exports.output import Output
from extraction_assets.exports.source import ExportedFeature, ExportSource

WHAT = "`batch-N.json` of 128 features, as SAEDashboard's Neuronpedia runner writes them."
READ_BY = "`NeuronpediaDashboardBatch` of sae-dashboard, and what takes the runner's files"
VERSION = 2
NEEDS = (FEATURE_DIRECTIONS,)
SEVERAL_SAES = False
OPTIONS: Mapping[str, Option] = {
    **NAMES,
    "sae_id_suffix": Option("", "what is behind `__` in the source's id; by default nothing"),
}
FEATURES_IN_FILE = 128

_ALIGNMENT = tuple(f"neuron_alignment_{name}" for name in ("indices", "values", "l1"))
_CORRELATED = tuple(
    f"correlated_{what}_{name}" for what in ("neurons", "features") for name in ("indices", "l1", "pearson")
)


def check(source: ExportSource, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    neuronpedia_names(source, options)


def inside(source: ExportSource, options: Mapping[str, str]) -> str:
    """See ``ExportFormat``: a folder holds one SAE."""
    return ""


def write(source: ExportSource, out: Output, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    names = neuronpedia_names(source, options)
    known = {
        "model_id": names.model_id,
        "layer": names.layer,
        "sae_set": names.source_set,
        "sae_id_suffix": options["sae_id_suffix"] or None,
    }
    for batch in source.batches(FEATURES_IN_FILE):
        name = f"batch-{batch.number}.json"
        if out.has(name, len(batch.neuron_indices)):
            continue
        with out.file(name) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(_batch(source, out, batch, known))


def _batch(source: ExportSource, out: Output, batch: Batch, known: Mapping[str, Any]) -> Iterator[str]:
    """The text of a file, in pieces."""
    yield encode(known)[:-1] + ',"features":['
    for number, feature in enumerate(source.read(batch.neuron_indices, draws=True)):
        activations = ",".join(_activations(feature))
        yield ("," if number else "") + f'{encode(_feature(source, feature))[:-1]},"activations":[{activations}]}}'
        out.advance()
    yield "]}\n"


def _feature(source: ExportSource, feature: ExportedFeature) -> dict[str, Any]:
    """All of a feature but its activations."""
    extraction, row, logits = source.extraction, feature.statistics, feature.logits
    values, heights = octaves(row.histogram)
    return {
        "feature_index": feature.neuron_index,
        **{name: [] for name in (*_ALIGNMENT, *_CORRELATED)},
        "neg_str": [one.token for one in logits.bottom] if logits else [],
        "neg_values": [one.logit for one in logits.bottom] if logits else [],
        "pos_str": [one.token for one in logits.top] if logits else [],
        "pos_values": [one.logit for one in logits.top] if logits else [],
        "frac_nonzero": row.token_frequency,
        "freq_hist_data_bar_values": values,
        "freq_hist_data_bar_heights": heights,
        "logits_hist_data_bar_heights": logits.histogram if logits else [],
        "logits_hist_data_bar_values": centres(logits) if logits else [],
        "n_prompts_total": extraction.sample_count,
        "n_tokens_in_prompt": extraction.max_length,
        "dataset": shown_source(source.corpus.source),
        "decoder_weights_dist": [],
        "vector": [],
    }


def _activations(feature: ExportedFeature) -> Iterator[str]:
    """The strongest examples, then those of each interval, the highest first."""
    for group in example_groups(feature):
        if group.kind == "random":
            continue  # the runner has no such group
        bounds = encode(_bounds(feature, group))[:-1]
        for one in group.examples:
            yield f"{bounds},{_activation(feature, one)}}}"


def _bounds(feature: ExportedFeature, group: ExampleGroup) -> dict[str, float | None]:
    """The runner marks its strongest examples by -1, and the maximum."""
    if group.population is None:
        return {"bin_min": -1, "bin_max": highest_of(feature), "bin_contains": -1}
    return {"bin_min": group.population.low, "bin_max": group.population.high, "bin_contains": group.population.share}


def _activation(feature: ExportedFeature, one: OneExample) -> str:
    """Tokens are copied as the JSON text that is stored."""
    sample = feature.sample(one.sample_index)
    values = dense_text(one, sample.length)
    return f'"tokens":{sample.tokens_text},"values":{values},"qualifying_token_index":{one.positions[0]}'
