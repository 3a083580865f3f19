"""Bulk load of merged results, inside the caller's one transaction."""

import datetime as dt
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.tables import (
    corpora,
    extractions,
    feature_activations,
    features,
    sample_messages,
    samples,
)
from extraction_assets.engine.corpora.message_spans import SampleMessages
from extraction_assets.engine.selection.merge import ranks
from extraction_assets.engine.selection.statistics.descriptions import STATISTICS, FeatureStatistics, StatisticColumn
from extraction_assets.engine.shapes import TopKTable

_TOKENS_AT_ONCE = 1_280_000  # of samples whose columns are made at once: some 20 MB
_DELETED_AT_ONCE = 900  # of SQLite's 999 parameters

Display = Callable[[list[int]], list[str]]
"""From token ids to one readable text an id."""


class CorpusSamples(NamedTuple):
    """The parts of a merge's corpus that the database stores."""

    token_ids: np.ndarray
    """[N, T]"""
    attention_mask: np.ndarray
    """bool [N, T]"""
    document_ids: list[str]
    document_numbers: np.ndarray
    """[N]"""
    first_tokens: np.ndarray
    """[N]"""
    start_sample: int
    """Absolute ``sample_index`` of row 0."""
    source: str
    tokenizer: str
    packing: str
    content_fingerprint: Callable[[int], str]
    """Hash of the first n rows."""
    messages: SampleMessages | None = None
    """Who speaks where, in a corpus of chats."""


class ExtractionRow(NamedTuple):
    """One (extraction, SAE) as the ``extractions`` table describes it."""

    name: str
    sae: str
    model: str
    hook: str
    latent_dim: int
    max_length: int
    top_k_examples: int
    settings: dict[str, Any]
    fingerprint: str


def replace_results(
    connection: sa.Connection,
    extraction: ExtractionRow,
    corpus: CorpusSamples,
    table: TopKTable,
    statistics: FeatureStatistics,
    display_tokens: Display,
) -> int:
    """Replace the rows of one (extraction, SAE); returns its id.

    ``table`` and ``statistics`` are on the CPU. ``samples`` is shared: what is new is inserted, what no example of
    any extraction names any more is deleted. Call it inside ``write_transaction``.
    """
    corpus_id = _corpus_id(connection, corpus)
    extraction_id = _upsert_extraction(connection, extraction, corpus_id, statistics)
    _replace_rows(connection, features, extraction_id, _feature_columns(extraction_id, statistics))
    examples = example_columns(extraction_id, corpus, table, statistics, display_tokens)
    _replace_rows(connection, feature_activations, extraction_id, examples)
    named = np.unique(table.sample_index.numpy())
    present = _present_samples(connection, corpus_id)
    _add_samples(connection, corpus_id, corpus, np.setdiff1d(named, present, assume_unique=True), display_tokens)
    _delete_samples(connection, corpus_id, extraction_id, np.setdiff1d(present, named, assume_unique=True))
    delete_unreferenced(connection, except_corpus=corpus_id)
    return extraction_id


def _replace_rows(connection: sa.Connection, table: sa.Table, extraction_id: int, columns: dict[str, Any]) -> None:
    """Put rows in the place of an extraction's old ones."""
    backend_of(connection).replace_rows(connection, table, extraction_id, pa.table(columns))


def _corpus_id(connection: sa.Connection, corpus: CorpusSamples) -> int:
    """The id of a corpus in the database, which may be shorter if the corpus has grown; otherwise of a new row."""
    count = len(corpus.token_ids)
    texts = {name: _storable(getattr(corpus, name)) for name in ("source", "tokenizer", "packing")}
    described = {**texts, "start_sample": corpus.start_sample}
    same = [corpora.c[name] == value for name, value in described.items()]
    query = sa.select(corpora).where(*same, corpora.c.sample_count <= count).order_by(corpora.c.sample_count.desc())
    for row in connection.execute(query).all():
        if corpus.content_fingerprint(row.sample_count) == row.fingerprint:
            grown = {"sample_count": count, "fingerprint": corpus.content_fingerprint(count)}
            connection.execute(sa.update(corpora).where(corpora.c.id == row.id).values(grown))
            return int(row.id)
    new = {**described, "sample_count": count, "fingerprint": corpus.content_fingerprint(count)}
    return _inserted_id(connection.execute(sa.insert(corpora).values(new)))


def _upsert_extraction(
    connection: sa.Connection, extraction: ExtractionRow, corpus_id: int, statistics: FeatureStatistics
) -> int:
    now = dt.datetime.now(dt.UTC)
    values = {
        **extraction._asdict(),
        "corpus_id": corpus_id,
        "sample_count": statistics.samples_seen,
        "token_count": statistics.tokens_seen,
        "finished_at": now,
    }
    named = (extractions.c.name == extraction.name) & (extractions.c.sae == extraction.sae)
    known = connection.scalar(sa.select(extractions.c.id).where(named))
    if known is None:
        return _inserted_id(connection.execute(sa.insert(extractions).values({**values, "created_at": now})))
    connection.execute(sa.update(extractions).where(named).values(values))
    return int(known)


def _inserted_id(result: sa.CursorResult[Any]) -> int:
    key = result.inserted_primary_key
    assert key is not None, "a single-row insert returns its key"
    return int(key[0])


def _feature_columns(extraction_id: int, statistics: FeatureStatistics) -> dict[str, Any]:
    """One row for every feature; a dead one has zero counts and no maximum."""
    dead = statistics.sample_count.numpy() == 0
    columns = {
        column.name: _statistic_column(column, statistics, dead, known=getattr(statistics, one.name) is not None)
        for one in STATISTICS
        for column in one.columns
    }
    numbers = pa.array(np.arange(len(dead)))
    return {"extraction_id": _constant(extraction_id, len(dead)), "neuron_index": numbers, **columns}


def _statistic_column(
    column: StatisticColumn, statistics: FeatureStatistics, dead: np.ndarray, *, known: bool
) -> pa.Array:
    """A column of ``features``; NULL if the statistic is not ``known``, because chunks of an earlier version do not
    have it."""
    if not known:
        return pa.nulls(len(dead), pa.float64())
    values = column.values(statistics)
    if column.type == "integers":
        return _lists(np.full(len(dead), values.shape[1]), pa.array(values.reshape(-1)))
    return pa.array(values, mask=dead if column.nullable else None)


def example_columns(
    extraction_id: int,
    corpus: CorpusSamples,
    table: TopKTable,
    statistics: FeatureStatistics,
    display_tokens: Display,
) -> dict[str, Any]:
    sample_index, offsets = table.sample_index.numpy(), table.firing_offsets.numpy()
    strongest = table.positions.numpy()[offsets[:-1]]  # [E]: every example has a firing
    max_tokens = _displayed(corpus.token_ids[sample_index - corpus.start_sample, strongest], display_tokens)
    lengths = np.diff(offsets)
    return {
        "extraction_id": _constant(extraction_id, len(sample_index)),
        "neuron_index": pa.array(table.neuron_index.numpy()),
        "rank": pa.array(ranks(table, len(statistics.sample_count)).numpy()),
        "sample_index": pa.array(sample_index),
        "max_activation": pa.array(table.max_activation.numpy().astype(np.float64)),
        "max_token": max_tokens.dictionary_decode(),
        "positions": _lists(lengths, pa.array(table.positions.numpy())),
        "activations": _lists(lengths, pa.array(table.activations.numpy().astype(np.float64))),
    }


def _present_samples(connection: sa.Connection, corpus_id: int) -> np.ndarray:
    present = connection.scalars(sa.select(samples.c.sample_index).where(samples.c.corpus_id == corpus_id)).all()
    return np.sort(np.asarray(present, dtype=np.int64))


def _add_samples(
    connection: sa.Connection, corpus_id: int, corpus: CorpusSamples, new: np.ndarray, display_tokens: Display
) -> None:
    """Insert samples (absolute indices, ascending)."""
    step = max(1, _TOKENS_AT_ONCE // corpus.token_ids.shape[1])
    parts = [new[first : first + step] for first in range(0, len(new), step)]
    columns = (_sample_columns(corpus_id, corpus, part, display_tokens) for part in parts)
    backend_of(connection).insert(connection, samples, map(pa.table, columns))
    if corpus.messages is not None:
        said = (_message_columns(corpus_id, corpus.messages, part, corpus.start_sample) for part in parts)
        backend_of(connection).insert(connection, sample_messages, map(pa.table, said))


def _sample_columns(corpus_id: int, corpus: CorpusSamples, new: np.ndarray, display_tokens: Display) -> dict[str, Any]:
    rows = new - corpus.start_sample
    mask = corpus.attention_mask[rows]
    lengths, token_ids = mask.sum(axis=1), corpus.token_ids[rows][mask]
    documents, document = np.unique(corpus.document_numbers[rows], return_inverse=True)
    document_ids = pa.array([_storable(corpus.document_ids[number]) for number in documents], pa.string())
    return {
        "corpus_id": _constant(corpus_id, len(new)),
        "sample_index": pa.array(new),
        "document_id": document_ids.take(pa.array(document)),
        "first_token": pa.array(corpus.first_tokens[rows]),
        "token_ids": _lists(lengths, pa.array(token_ids)),
        "tokens": _lists(lengths, _displayed(token_ids, display_tokens)),
    }


def _message_columns(corpus_id: int, messages: SampleMessages, new: np.ndarray, start_sample: int) -> dict[str, Any]:
    """One row for each message of samples (absolute indices, ascending), numbered from 0 in its sample."""
    rows, counts = messages.rows_of(new - start_sample)
    role, start, stop = messages.spans[rows].T
    roles = pa.array([_storable(one) for one in messages.roles], pa.string())
    return {
        "corpus_id": _constant(corpus_id, len(rows)),
        "sample_index": pa.array(np.repeat(new, counts)),
        "number": pa.array(np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)),
        "role": roles.take(pa.array(role)),
        "start": pa.array(start),
        "stop": pa.array(stop),
    }


def _displayed(token_ids: np.ndarray, display_tokens: Display) -> pa.DictionaryArray:
    """The text of each token id [Z]; every different one is computed once."""
    there = np.zeros(int(token_ids.max(initial=-1)) + 1, dtype=bool)
    there[token_ids] = True
    texts = pa.array(display_tokens(np.flatnonzero(there).tolist()), pa.string())
    numbers = np.cumsum(there, dtype=np.int32) - 1
    return pa.DictionaryArray.from_arrays(pa.array(numbers[token_ids]), texts)


def _delete_samples(connection: sa.Connection, corpus_id: int, extraction_id: int, unnamed: np.ndarray) -> None:
    """Delete samples that the extraction no longer names, except those that another one names."""
    sharing = sa.select(extractions.c.id).where(extractions.c.corpus_id == corpus_id, extractions.c.id != extraction_id)
    if len(unnamed) and (others := connection.scalars(sharing).all()):
        fa = feature_activations.c
        named = connection.scalars(sa.select(fa.sample_index).where(fa.extraction_id.in_(others)).distinct()).all()
        unnamed = np.setdiff1d(unnamed, np.asarray(named, dtype=np.int64))
    for first in range(0, len(unnamed), _DELETED_AT_ONCE):
        part = unnamed[first : first + _DELETED_AT_ONCE].tolist()
        for table in (samples, sample_messages):
            connection.execute(sa.delete(table).where(table.c.corpus_id == corpus_id, table.c.sample_index.in_(part)))


def delete_unreferenced(connection: sa.Connection, except_corpus: int | None = None) -> None:
    """Delete samples that no example names, except in ``except_corpus``, and corpora that no extraction uses."""
    for corpus_id in connection.scalars(sa.select(corpora.c.id).where(corpora.c.id != (except_corpus or 0))).all():
        of_corpus = samples.c.corpus_id == corpus_id
        sharing = sa.select(extractions.c.id).where(extractions.c.corpus_id == corpus_id)
        named = sa.select(feature_activations.c.sample_index).where(feature_activations.c.extraction_id.in_(sharing))
        # A set difference, computed once. PostgreSQL would evaluate NOT IN (…) again for every sample, once
        # the examples are too many for its work_mem.
        unnamed = sa.select(samples.c.sample_index).where(of_corpus).except_(named)
        connection.execute(sa.delete(samples).where(of_corpus, samples.c.sample_index.in_(unnamed)))
        _delete_messages_without_sample(connection, corpus_id)
    used = sa.exists().where(extractions.c.corpus_id == corpora.c.id)
    connection.execute(sa.delete(corpora).where(~used))


def _delete_messages_without_sample(connection: sa.Connection, corpus_id: int) -> None:
    said = sample_messages.c
    there = sa.select(samples.c.sample_index).where(samples.c.corpus_id == corpus_id)
    gone = sa.select(said.sample_index).where(said.corpus_id == corpus_id).except_(there)
    connection.execute(sa.delete(sample_messages).where(said.corpus_id == corpus_id, said.sample_index.in_(gone)))


def _constant(value: int, count: int) -> pa.Array:
    return pa.array(np.full(count, value))


def _lists(lengths: np.ndarray, values: pa.Array) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


def _storable(text: str) -> str:
    """Text that UTF-8 and PostgreSQL take: names of files may hold bytes that are no text, and NUL is refused."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
