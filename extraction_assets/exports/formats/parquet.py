"""Parquet files of features, examples, draws, samples and labels, with a data card: a folder that is a data set."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from extraction_assets.catalog import FEATURE_DIRECTIONS, FEATURE_RELATIONS
from extraction_assets.database.backends.prefetch import made_ahead
from extraction_assets.database.queries.labels import list_labels
from extraction_assets.database.queries.named_samples import messages_of, named_samples
from extraction_assets.exports.formats.shared.data_card import TableFiles, data_card
from extraction_assets.exports.formats.shared.parquet_file import MakeTable, write_parquet
from extraction_assets.exports.formats.shared.parquet_tables import (
    TABLES,
    features_table,
    firings_tables,
    labels_table,
    read_lists,
    samples_table,
    schema_of,
)
from extraction_assets.exports.formats.shared.token_codes import TokenCodes
from extraction_assets.exports.option import Option
from extraction_assets.exports.output import Output
from extraction_assets.exports.source import ExportSource

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
_AHEAD = 2


def check(source: ExportSource, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``: there is nothing to refuse."""


def inside(source: ExportSource, options: Mapping[str, str]) -> str:
    """See ``ExportFormat``: a folder holds one SAE."""
    return ""


def write(source: ExportSource, out: Output, options: Mapping[str, str]) -> None:
    """See ``ExportFormat``. What is read of the database is a few row groups ahead of what is written."""
    codes = TokenCodes(source.samples, source.title, source.extraction.max_length)
    indices = _sample_indices(source)
    files = [*_of_features(source, codes), *_of_samples(source, indices, codes), _of_labels(source)]
    missing = [one for one in files if not out.has(one.name, one.features)]
    with made_ahead({one: one.tables() for one in missing}, _AHEAD) as made:
        for one in missing:
            with out.file(one.name) as path:
                write_parquet(path, schema_of(TABLES[one.table]), made[one])
            out.advance(one.features)
    out.write_text("README.md", data_card(source, {table: _files(out, files, table) for table in TABLES}))


class _File(NamedTuple):
    """A file that the export consists of."""

    table: str
    name: str
    features: int
    """That are done with it: the examples, which take longest, come last of a batch."""
    tables: Callable[[], Iterable[MakeTable]]
    """Its row groups; nothing is read before the first is taken."""


def _files(out: Output, files: Iterable[_File], table: str) -> TableFiles:
    names = [one.name for one in files if one.table == table]
    pattern = names[0] if len(names) == 1 else f"{table}-*.parquet"
    return TableFiles(pattern, sum(_rows(out, name) for name in names))


def _rows(out: Output, name: str) -> int:
    with out.open(name) as file:
        return int(pq.read_metadata(file).num_rows)


def _file(table: str, number: int, parts: int) -> str:
    return f"{table}.parquet" if parts == 1 else f"{table}-{number:05d}.parquet"


def _of_features(source: ExportSource, codes: TokenCodes) -> Iterator[_File]:
    """Statistics, draws and examples of each batch."""
    parts = -(-len(source.neuron_indices) // FEATURES_IN_FILE)
    rows = max(1, _TOKENS_AT_ONCE // source.extraction.max_length)
    for number, chosen in source.batches(FEATURES_IN_FILE):
        yield _File("features", _file("features", number, parts), 0, partial(_features, source, chosen))
        for table, draws in (("draws", True), ("examples", False)):
            tables = partial(_firings, source, chosen, codes, rows, draws)
            yield _File(table, _file(table, number, parts), 0 if draws else len(chosen), tables)


def _features(source: ExportSource, chosen: Sequence[int]) -> Iterator[MakeTable]:
    computed = {"relations": source.relations is not None, "directions": source.directions is not None}
    table = features_table(source.read(chosen), **computed)
    yield lambda: table


def _firings(
    source: ExportSource, chosen: Sequence[int], codes: TokenCodes, rows: int, draws: bool
) -> Iterator[MakeTable]:
    return firings_tables(source.list_texts(chosen, draws=draws), codes, rows, draws=draws)


def _of_samples(source: ExportSource, indices: np.ndarray, codes: TokenCodes) -> Iterator[_File]:
    """The samples that examples and draws name."""
    at_once = max(1, _TOKENS_IN_FILE // source.extraction.max_length)
    parts = max(1, -(-len(indices) // at_once))
    for number in range(parts):
        chosen = indices[number * at_once : (number + 1) * at_once]
        yield _File("samples", _file("samples", number, parts), 0, partial(_samples, source, chosen, codes))


def _samples(source: ExportSource, indices: np.ndarray, codes: TokenCodes) -> Iterator[MakeTable]:
    for first in range(0, len(indices), _SAMPLES_AT_ONCE):
        part = indices[first : first + _SAMPLES_AT_ONCE].tolist()
        found = source.samples.read(part)
        said = messages_of(source.connection, source.extraction.id, source.extraction.corpus_id, part)
        listed = [found[index] for index in part if index in found]
        tokens = codes.take(np.array([one.sample_index for one in listed], dtype=np.int64))
        yield partial(samples_table, listed, tokens, codes, said)


def _of_labels(source: ExportSource) -> _File:
    """The labels of the exported features, in one file."""
    return _File("labels", _file("labels", 0, 1), 0, partial(_labels, source))


def _labels(source: ExportSource) -> Iterator[MakeTable]:
    chosen = source.neuron_indices if source.is_whole else set(source.neuron_indices)
    written = list_labels(source.connection, source.extraction.name, source.extraction.sae)
    table = labels_table(one for one in written if one.neuron_index in chosen)
    yield lambda: table


def _sample_indices(source: ExportSource) -> np.ndarray:
    """int64, ascending."""
    if source.is_whole:
        return named_samples(source.connection, source.extraction.id)
    named = np.zeros(0, dtype=np.int64)
    for draws in (False, True):
        for texts in source.list_texts(source.neuron_indices, draws=draws):
            named = np.union1d(named, read_lists(texts, source.title, draws=draws).leading[:, -1])
    return named
