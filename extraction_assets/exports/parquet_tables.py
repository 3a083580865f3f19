"""Arrow tables of features, examples, draws, samples and labels, and what each of their columns means."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from extraction_assets.database.queries.labels import Label
from extraction_assets.engine.corpora.message_spans import MessageSpan
from extraction_assets.engine.selection.statistics.registry import COLUMNS
from extraction_assets.exports.parquet_file import MakeTable
from extraction_assets.exports.samples import SampleText
from extraction_assets.exports.source import ExportedFeature
from extraction_assets.exports.token_codes import TokenCodes, joined, offsets_of

_STATISTIC_TYPES = {"integer": pa.int64(), "number": pa.float64(), "integers": pa.list_(pa.int64())}
_TOKEN = {"token_id": pa.int64(), "token": pa.string()}
_TOP_TOKENS = pa.list_(
    pa.struct({**_TOKEN, "count": pa.int64(), "mean_activation": pa.float64(), "share": pa.float64()})
)
_LOGITS = pa.list_(pa.struct({**_TOKEN, "logit": pa.float64()}))


class ExportedColumn(NamedTuple):
    """A column of a table, for the table and for the data card."""

    name: str
    type: pa.DataType
    meaning: str


_NEURON = ExportedColumn("neuron_index", pa.int64(), "number of the feature, from 0")
_SAMPLE = ExportedColumn("sample_index", pa.int64(), "number of the sample in its corpus, from 0")

FEATURES = (
    _NEURON,
    *(ExportedColumn(one.name, _STATISTIC_TYPES[one.type], one.meaning) for one in COLUMNS),
    ExportedColumn("flags", pa.list_(pa.string()), "flags, such as dead or dense; null where not computed"),
    ExportedColumn("top_tokens", _TOP_TOKENS, "tokens on which it fires most often; null where not computed"),
    ExportedColumn("next_tokens", _TOP_TOKENS, "tokens after those; null where not computed"),
    ExportedColumn(
        "neighbours",
        pa.list_(
            pa.struct({"neuron_index": pa.int64(), "tokens": pa.int64(), "jaccard": pa.float64(), "pmi": pa.float64()})
        ),
        "features that fire on the same tokens; null where not computed",
    ),
    ExportedColumn("top_logits", _LOGITS, "tokens that its decoder row raises most; null where not computed"),
    ExportedColumn("bottom_logits", _LOGITS, "tokens that its decoder row lowers most; null where not computed"),
    ExportedColumn(
        "nearest",
        pa.list_(pa.struct({"sae": pa.string(), "neuron_index": pa.int64(), "cosine": pa.float64()})),
        "nearest decoder rows; null where not computed",
    ),
)

_FIRINGS = (
    _SAMPLE,
    ExportedColumn("max_activation", pa.float32(), "maximum of the feature in the sample"),
    ExportedColumn("max_token", pa.string(), "token at which it is"),
    ExportedColumn("max_position", pa.int32(), "position of that token in the sample"),
    ExportedColumn("tokens", pa.list_(pa.string()), "the sample, a text for each token"),
    ExportedColumn("values", pa.list_(pa.float32()), "activation at each of these tokens; 0 where it does not fire"),
)

EXAMPLES = (_NEURON, ExportedColumn("rank", pa.int32(), "place of the example, 0 is the strongest"), *_FIRINGS)

DRAWS = (
    _NEURON,
    ExportedColumn(
        "interval",
        pa.int32(),
        "half octave of the maximum from which it was drawn, from 2^-20 on; -1 for all samples in which it fires",
    ),
    *_FIRINGS,
)

SAMPLES = (
    _SAMPLE,
    ExportedColumn("document_id", pa.string(), "the document"),
    ExportedColumn("first_token", pa.int64(), "where the sample begins in its document, in tokens"),
    ExportedColumn("token_ids", pa.list_(pa.int64()), "ids of its tokens"),
    ExportedColumn("tokens", pa.list_(pa.string()), "a text for each of them"),
    ExportedColumn(
        "messages",
        pa.list_(pa.struct({"role": pa.string(), "start": pa.int32(), "stop": pa.int32()})),
        "who speaks from position start to stop - 1, in corpora of chats",
    ),
)

LABELS = (
    _NEURON,
    ExportedColumn("label", pa.string(), "name that people or programs gave the feature"),
    ExportedColumn("mark", pa.string(), "interesting, polysemantic or dead end; null without a mark"),
    ExportedColumn("note", pa.string(), "what else was written of it"),
    ExportedColumn("updated_at", pa.timestamp("us", "UTC"), "when it was written last"),
)

TABLES: Mapping[str, tuple[ExportedColumn, ...]] = {
    "features": FEATURES,
    "examples": EXAMPLES,
    "draws": DRAWS,
    "samples": SAMPLES,
    "labels": LABELS,
}
"""Name of a table -> its columns."""


def schema_of(columns: Iterable[ExportedColumn]) -> pa.Schema:
    """The schema that readers see."""
    return pa.schema([(one.name, one.type) for one in columns])


def features_table(features: Iterable[ExportedFeature], *, relations: bool, directions: bool) -> pa.Table:
    """One row a feature. ``relations`` and ``directions`` say whether those were computed for this result."""
    rows = [_feature_row(feature, relations, directions) for feature in features]
    return pa.table([pa.array([row.get(one.name) for row in rows], one.type) for one in FEATURES], schema_of(FEATURES))


def _feature_row(feature: ExportedFeature, relations: bool, directions: bool) -> dict[str, Any]:
    """Column -> value; what was not computed is left out."""
    statistics = feature.statistics
    found: dict[str, Any] = {column.name: getattr(statistics, column.name) for column in COLUMNS}
    found["neuron_index"] = feature.neuron_index
    if relations:
        found["flags"] = list(feature.flags)
        found["top_tokens"], found["next_tokens"] = feature.top_tokens("firing"), feature.top_tokens("next")
        found["neighbours"] = [] if feature.neighbours is None else feature.neighbours.neighbours
    if directions:
        found["nearest"] = feature.nearest
    if (logits := feature.logits) is not None:
        found["top_logits"], found["bottom_logits"] = logits.top, logits.bottom
    return found


def examples_tables(features: Iterable[ExportedFeature], codes: TokenCodes, rows: int) -> Iterator[MakeTable]:
    """The examples of features, up to ``rows`` at a time; tokens are dictionaries."""
    for neurons, ranks, listed in _pieces(((one.neuron_index, one.example_rows) for one in features), rows):
        leading = {"neuron_index": pa.array(neurons, pa.int64()), "rank": pa.array(ranks, pa.int32())}
        yield partial(_firings_table, leading, _columns(zip(*listed, strict=True), codes), codes)


def draws_tables(features: Iterable[ExportedFeature], codes: TokenCodes, rows: int) -> Iterator[MakeTable]:
    """The draws of features, as ``examples_tables``."""
    for neurons, _, listed in _pieces(((one.neuron_index, one.draw_rows) for one in features), rows):
        intervals, *firings = zip(*listed, strict=True)
        leading = {"neuron_index": pa.array(neurons, pa.int64()), "interval": pa.array(intervals, pa.int32())}
        yield partial(_firings_table, leading, _columns(firings, codes), codes)


def _pieces(
    found: Iterable[tuple[int, Sequence[Sequence[Any]]]], rows: int
) -> Iterator[tuple[list[int], list[int], list[Sequence[Any]]]]:
    """(neuron_index, place in its list, example) of features as three lists of up to ``rows``."""
    neurons, places, listed = list[int](), list[int](), list[Sequence[Any]]()
    for neuron_index, ones in found:
        for first in range(0, len(ones), rows):
            part = ones[first : first + rows]
            if listed and len(listed) + len(part) > rows:
                yield neurons, places, listed
                neurons, places, listed = [], [], []
            neurons += repeat(neuron_index, len(part))
            places += range(first, first + len(part))
            listed += part
    if listed:
        yield neurons, places, listed


class _Firings(NamedTuple):
    """The columns of examples or draws, without a Python object a value."""

    known: dict[str, pa.Array]
    """The columns that have one value an example."""
    tokens: list[np.ndarray]
    """Of each sample: int32 [its tokens], see ``TokenCodes``."""
    counts: np.ndarray
    """int64 [n]: firings of each."""
    positions: np.ndarray
    """int64 [all firings]"""
    activations: np.ndarray
    """float64 [all firings]"""


def _columns(fields: Iterable[Sequence[Any]], codes: TokenCodes) -> _Firings:
    """From the fields of examples, as the database lists them."""
    samples, maxima, max_tokens, positions, activations = fields
    counts = np.fromiter(map(len, positions), np.int64, len(positions))
    firings = int(counts.sum())
    known = {
        "sample_index": pa.array(samples, pa.int64()),
        "max_activation": pa.array(maxima, pa.float32()),
        "max_token": pa.array(max_tokens, pa.string()),
        "max_position": pa.array([one[0] for one in positions], pa.int32()),
    }
    return _Firings(
        known,
        codes.take_each(samples),
        counts,
        np.fromiter(chain.from_iterable(positions), np.int64, firings),
        np.fromiter(chain.from_iterable(activations), np.float64, firings),
    )


def _firings_table(leading: Mapping[str, pa.Array], firings: _Firings, codes: TokenCodes) -> pa.Table:
    """The columns of ``_FIRINGS`` behind others."""
    offsets = offsets_of(firings.tokens)
    at = pa.array(offsets)
    dense = {
        "tokens": pa.ListArray.from_arrays(at, codes.texts(joined(firings.tokens))),
        "values": pa.ListArray.from_arrays(at, pa.array(_dense(firings, offsets))),
    }
    return pa.table({**leading, **firings.known, **dense})


def _dense(firings: _Firings, offsets: np.ndarray) -> np.ndarray:
    """float32 [tokens of all samples]: the activation at each, 0 where there is no firing."""
    values = np.zeros(int(offsets[-1]), dtype=np.float32)
    at = np.repeat(offsets[:-1], firings.counts) + firings.positions
    values[at] = firings.activations  # one rounding: the float32 that is meant
    return values


def samples_table(
    samples: Sequence[SampleText],
    tokens: Sequence[np.ndarray],
    codes: TokenCodes,
    messages: Mapping[int, Sequence[MessageSpan]] | None,
) -> pa.Table:
    """One row a sample with its ``tokens``, as dictionaries; ``messages`` are None for a corpus that holds no chats."""
    offsets = offsets_of(tokens)
    said = [None if messages is None else messages.get(one.sample_index, ()) for one in samples]
    ids = np.fromstring(",".join(one.token_ids_text[1:-1] for one in samples), np.int64, sep=",")
    return pa.table(
        {
            "sample_index": pa.array([one.sample_index for one in samples], pa.int64()),
            "document_id": pa.array([one.document_id for one in samples], pa.string()),
            "first_token": pa.array([one.first_token for one in samples], pa.int64()),
            "token_ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids)),
            "tokens": pa.ListArray.from_arrays(pa.array(offsets), codes.texts(joined(tokens))),
            "messages": pa.array(said, schema_of(SAMPLES).field("messages").type),
        }
    )


def labels_table(labels: Iterable[Label]) -> pa.Table:
    """One row a label."""
    rows = [one._asdict() for one in labels]
    return pa.Table.from_pylist(
        [{name: row[name] for name in schema_of(LABELS).names} for row in rows], schema_of(LABELS)
    )
