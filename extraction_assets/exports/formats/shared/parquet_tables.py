"""Arrow tables of features, examples, draws, samples and labels, and what each of their columns means."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from extraction_assets.database.queries.labels import Label
from extraction_assets.engine.corpora.message_spans import MessageSpan
from extraction_assets.engine.statistics.registry import COLUMNS
from extraction_assets.exports.errors import ExportError
from extraction_assets.exports.exported_rows import ListTexts
from extraction_assets.exports.formats.shared.json_lists import DamagedListError, ExampleLists, example_lists
from extraction_assets.exports.formats.shared.parquet_file import MakeTable
from extraction_assets.exports.formats.shared.token_codes import SampleCodes, TokenCodes
from extraction_assets.exports.samples import SampleText
from extraction_assets.exports.source import ExportedFeature

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


def firings_tables(lists: Iterable[ListTexts], codes: TokenCodes, rows: int, *, draws: bool) -> Iterator[MakeTable]:
    """The examples or ``draws`` of features, up to ``rows`` at a time; tokens are dictionaries. Raises ExportError."""
    for texts in lists:
        found = read_lists(texts, codes.title, draws=draws)
        groups = -(-len(found.max_activation) // rows)
        edges = np.linspace(0, len(found.max_activation), groups + 1).astype(np.int64).tolist()
        neurons = np.repeat(texts.neuron_indices, found.counts)
        places = np.arange(len(neurons)) - np.repeat(np.cumsum(found.counts) - found.counts, found.counts)
        second = {"interval": found.leading[:, 0]} if draws else {"rank": places}
        for first, stop in pairwise(edges):
            leading = {name: column[first:stop] for name, column in {"neuron_index": neurons, **second}.items()}
            samples = codes.take(found.leading[first:stop, -1])
            yield partial(_firings_table, leading, found, slice(first, stop), samples, codes)


def read_lists(texts: ListTexts, title: str, *, draws: bool) -> ExampleLists:
    """The lists of some features as columns. Raises ExportError."""
    try:
        return example_lists(texts.texts, leading=2 if draws else 1)
    except DamagedListError as error:
        first, last = texts.neuron_indices[0], texts.neuron_indices[-1]
        raise ExportError(
            f"the {'draws' if draws else 'examples'} of one of the features {first} to {last} of {title} are damaged "
            "in the results database: merge the extraction again"
        ) from error


def _firings_table(
    leading: Mapping[str, np.ndarray], found: ExampleLists, chosen: slice, samples: SampleCodes, codes: TokenCodes
) -> pa.Table:
    """Some of the examples: ``leading`` columns and those of ``_FIRINGS``."""
    offsets = found.firing_offsets[chosen.start : chosen.stop + 1]
    tokens = samples.lists()
    dense = _dense(found, offsets, tokens.offsets.to_numpy(), codes.title)
    schema = schema_of(_FIRINGS)
    known = {
        "sample_index": found.leading[chosen, -1],
        "max_activation": found.max_activation[chosen],
        "max_token": found.max_token[chosen],
        "max_position": found.positions[offsets[:-1]],
    }
    return pa.table(
        {
            "neuron_index": pa.array(leading["neuron_index"], pa.int64()),
            **{name: pa.array(column, pa.int32()) for name, column in leading.items() if name != "neuron_index"},
            **{name: pa.array(column, schema.field(name).type) for name, column in known.items()},
            "tokens": pa.ListArray.from_arrays(tokens.offsets, codes.texts(tokens.values.to_numpy())),
            "values": pa.ListArray.from_arrays(tokens.offsets, pa.array(dense)),
        }
    )


def _dense(found: ExampleLists, offsets: np.ndarray, tokens: np.ndarray, title: str) -> np.ndarray:
    """float32 [tokens of all samples]: the activation at each, 0 where there is no firing. ``offsets`` say where the
    firings of each example begin, ``tokens`` where the tokens of its sample do. Raises ExportError."""
    counts, firings = np.diff(offsets), slice(int(offsets[0]), int(offsets[-1]))
    positions = found.positions[firings]
    if (positions >= np.repeat(np.diff(tokens), counts)).any():
        raise ExportError(f"an example of {title} names a position behind its sample's end: merge the extraction again")
    values = np.zeros(int(tokens[-1]), dtype=np.float32)
    values[np.repeat(tokens[:-1], counts) + positions] = found.activations[firings]
    return values


def samples_table(
    samples: Sequence[SampleText],
    listed: SampleCodes,
    codes: TokenCodes,
    messages: Mapping[int, Sequence[MessageSpan]] | None,
) -> pa.Table:
    """One row a sample with its tokens ``listed``, as dictionaries; ``messages`` are None for a corpus that holds no
    chats."""
    tokens = listed.lists()
    said = [None if messages is None else messages.get(one.sample_index, ()) for one in samples]
    ids = np.fromstring(",".join(one.token_ids_text[1:-1] for one in samples), np.int64, sep=",")
    return pa.table(
        {
            "sample_index": pa.array([one.sample_index for one in samples], pa.int64()),
            "document_id": pa.array([one.document_id for one in samples], pa.string()),
            "first_token": pa.array([one.first_token for one in samples], pa.int64()),
            "token_ids": pa.ListArray.from_arrays(tokens.offsets, pa.array(ids)),
            "tokens": pa.ListArray.from_arrays(tokens.offsets, codes.texts(tokens.values.to_numpy())),
            "messages": pa.array(said, schema_of(SAMPLES).field("messages").type),
        }
    )


def labels_table(labels: Iterable[Label]) -> pa.Table:
    """One row a label."""
    rows = [one._asdict() for one in labels]
    return pa.Table.from_pylist(
        [{name: row[name] for name in schema_of(LABELS).names} for row in rows], schema_of(LABELS)
    )
