"""Parquet files of features, examples, draws, samples and labels, with a data card: a folder that is a data set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow.parquet as pq

from extraction_assets.catalog import FEATURE_DIRECTIONS, FEATURE_RELATIONS
from extraction_assets.database.queries.labels import list_labels
from extraction_assets.database.queries.named_samples import messages_of, named_samples
from extraction_assets.exports.data_card import TableFiles, data_card
from extraction_assets.exports.option import Option
from extraction_assets.exports.output import Output
from extraction_assets.exports.parquet_file import MakeTable, write_parquet
from extraction_assets.exports.parquet_tables import (
    TABLES,
    features_table,
    firings_tables,
    labels_table,
    samples_table,
    schema_of,
)
from extraction_assets.exports.source import Batch, ExportSource
from extraction_assets.exports.token_codes import TokenCodes

WHAT = (
    "`features.parquet`, `examples.parquet`, `draws.parquet`, `samples.parquet` and `labels.parquet`, or numbered "
    "parts of them (`examples-00000.parquet`), and `README.md`, a data card."
)
READ_BY = "pandas, `datasets`, DuckDB, polars and all that reads Parquet; the hub"
VERSION = 2
NEEDS = (FEATURE_RELATIONS, FEATURE_DIRECTIONS)
SEVERAL_SAES = False
OPTIONS: Mapping[str, Option] = {}

FEATURES_IN_FILE = 1024
_TOKENS_IN_FILE = 6_400_000
_TOKENS_AT_ONCE = 3_200_000  # of a row group: 26 MB of codes and values
_SAMPLES_AT_ONCE = 2_000


def check(source: ExportSource, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``: there is nothing to refuse."""


def inside(source: ExportSource, options: Mapping[str, str]) -> str:
    """See ``ExportFormat``: a folder holds one SAE."""
    return ""


def write(source: ExportSource, out: Output, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``."""
    parts = -(-len(source.neuron_indices) // FEATURES_IN_FILE)
    codes = TokenCodes(source.samples, source.title, source.extraction.max_length)
    for batch in source.batches(FEATURES_IN_FILE):
        _write_batch(source, out, batch, parts, codes)
    counts = dict.fromkeys(("features", "examples", "draws"), parts)
    counts |= {"samples": _write_samples(source, out, codes), "labels": _write_labels(source, out)}
    out.write_text(
        "README.md", data_card(source, {table: _files(out, table, count) for table, count in counts.items()})
    )


def _files(out: Output, table: str, parts: int) -> TableFiles:
    names = [_file(table, number, parts) for number in range(parts)]
    pattern = names[0] if parts == 1 else f"{table}-*.parquet"
    return TableFiles(pattern, sum(_rows(out, name) for name in names))


def _rows(out: Output, name: str) -> int:
    with out.open(name) as file:
        return int(pq.read_metadata(file).num_rows)


def _file(table: str, number: int, parts: int) -> str:
    return f"{table}.parquet" if parts == 1 else f"{table}-{number:05d}.parquet"


def _write_batch(source: ExportSource, out: Output, batch: Batch, parts: int, codes: TokenCodes) -> None:
    """The files of some features; the examples, which take longest, come last and say that the others are there."""
    rows = max(1, _TOKENS_AT_ONCE // source.extraction.max_length)
    name = _file("features", batch.number, parts)
    if not out.has(name):
        computed = {"relations": source.relations is not None, "directions": source.directions is not None}
        table = features_table(source.read(batch.neuron_indices), **computed)
        _write(out, "features", name, [lambda: table])
    name = _file("draws", batch.number, parts)
    if not out.has(name):
        lists = source.list_texts(batch.neuron_indices, draws=True)
        _write(out, "draws", name, firings_tables(lists, codes, rows, draws=True))
    name = _file("examples", batch.number, parts)
    if not out.has(name, len(batch.neuron_indices)):
        lists = source.list_texts(batch.neuron_indices)
        _write(out, "examples", name, firings_tables(lists, codes, rows, draws=False))
        out.advance(len(batch.neuron_indices))


def _write(out: Output, table: str, name: str, tables: Iterable[MakeTable]) -> None:
    with out.file(name) as path:
        write_parquet(path, schema_of(TABLES[table]), tables)


def _write_samples(source: ExportSource, out: Output, codes: TokenCodes) -> int:
    """The samples that examples and draws name; in how many parts."""
    indices = _sample_indices(source)
    at_once = max(1, _TOKENS_IN_FILE // source.extraction.max_length)
    parts = max(1, -(-len(indices) // at_once))
    for number in range(parts):
        name = _file("samples", number, parts)
        if not out.has(name):
            _write(
                out,
                "samples",
                name,
                _samples(source, indices[number * at_once : (number + 1) * at_once].tolist(), codes),
            )
    return parts


def _samples(source: ExportSource, indices: Sequence[int], codes: TokenCodes) -> Iterator[MakeTable]:
    for first in range(0, len(indices), _SAMPLES_AT_ONCE):
        part = indices[first : first + _SAMPLES_AT_ONCE]
        found = source.samples.read(part)
        said = messages_of(source.connection, source.extraction.id, source.extraction.corpus_id, part)
        listed = [found[index] for index in part if index in found]
        tokens = codes.take(np.array([one.sample_index for one in listed], dtype=np.int64))
        yield partial(samples_table, listed, tokens, codes, said)


def _sample_indices(source: ExportSource) -> np.ndarray:
    """int64, ascending."""
    if source.is_whole:
        return named_samples(source.connection, source.extraction.id)
    named = set[int]()
    for feature in source.read(source.neuron_indices):
        named.update(one.sample_index for one in feature.examples)
        named.update(one.sample_index for one in feature.draws)
    return np.array(sorted(named), dtype=np.int64)


def _write_labels(source: ExportSource, out: Output) -> int:
    """The labels of the exported features, in one file."""
    name = _file("labels", 0, 1)
    if not out.has(name):
        chosen = set(source.neuron_indices)
        written = list_labels(source.connection, source.extraction.name, source.extraction.sae)
        table = labels_table(one for one in written if one.neuron_index in chosen)
        _write(out, "labels", name, [lambda: table])
    return 1
