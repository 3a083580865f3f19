"""Bulk load of merged results, inside the caller's one transaction."""

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.backends.prefetch import made_ahead
from extraction_assets.database.bins import DENSITY_EDGES, MAX_EDGES
from extraction_assets.database.storable import storable
from extraction_assets.database.tables import (
    corpora,
    extractions,
    feature_draw_lists,
    feature_example_lists,
    feature_roles,
    features,
    sample_feature_lists,
    sample_messages,
    samples,
    strongest_token_lists,
)
from extraction_assets.database.writing.example_lists import (
    Listed,
    constant,
    displayed,
    feature_lists,
    role_rows,
    sample_lists,
    some_at_once,
    token_lists,
)
from extraction_assets.database.writing.samples import (
    CorpusSamples,
    Display,
    delete_samples,
    lists,
    present_samples,
    sample_parts,
)
from extraction_assets.engine.shapes import Draws, TopKTable
from extraction_assets.engine.statistics.registry import STATISTICS, FeatureStatistics, StatisticColumn

_FEATURES_AT_ONCE = 1 << 15


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
    draws: "Draws | None" = None,
    numerics: list[dict[str, Any]] | None = None,
) -> int:
    """Replace the rows of one (extraction, SAE); returns its id.

    ``table``, ``statistics`` and ``draws`` are on the CPU; ``numerics`` are the different numerics records of the
    chunks. ``samples`` is shared: what is new is inserted, what nothing of any extraction names any more is deleted.
    Call it inside ``write_transaction``.
    """
    corpus_id = _corpus_id(connection, corpus)
    extraction_id = _upsert_extraction(connection, extraction, corpus_id, statistics, numerics)
    named = _named_samples(corpus, table, draws)
    present = present_samples(connection, corpus_id)
    new, unnamed = (np.setdiff1d(*sets, assume_unique=True) for sets in ((named, present), (present, named)))
    replaced = _parts_of_tables(extraction_id, corpus, table, statistics, display_tokens, draws)
    added = sample_parts(corpus_id, corpus, new, display_tokens)
    backend = backend_of(connection)
    with made_ahead({**replaced, **added}) as parts:
        for stored in replaced:
            backend.replace_rows(connection, stored, extraction_id, parts[stored])
        for stored in added:
            backend.insert(connection, stored, parts[stored])
    delete_samples(connection, corpus_id, extraction_id, unnamed)
    delete_unreferenced(connection, except_corpus=corpus_id)
    backend.analyze(connection, (*replaced, extractions, corpora, samples, sample_messages))
    return extraction_id


def _named_samples(corpus: CorpusSamples, table: TopKTable, draws: "Draws | None") -> np.ndarray:
    """Absolute indices of the samples that an example or a draw names, ascending."""
    is_named = np.zeros(len(corpus.token_ids), dtype=bool)  # to sort millions of examples would take a second
    for named in (table.sample_index, *(() if draws is None else [draws.sample_index])):
        for rows in some_at_once(len(named)):
            is_named[named.numpy()[rows] - corpus.start_sample] = True
    return np.flatnonzero(is_named) + corpus.start_sample


def _parts_of_tables(
    extraction_id: int,
    corpus: CorpusSamples,
    table: TopKTable,
    statistics: FeatureStatistics,
    display_tokens: Display,
    draws: "Draws | None",
) -> dict[sa.Table, Iterable[pa.Table]]:
    """The new rows of each table, made when they are asked for."""
    examples, drawn = _listed(corpus, table, (), display_tokens), None
    pairs = [(table.sample_index.numpy(), table.neuron_index.numpy(), table.max_activation.numpy())]
    if draws is not None:
        drawn = _listed(corpus, draws, (draws.interval.numpy(),), display_tokens)
        pairs.append((draws.sample_index.numpy(), draws.neuron_index.numpy(), draws.max_activation.numpy()))
    frequency = statistics.sample_count.numpy() / max(1, statistics.samples_seen)
    said = [] if corpus.messages is None else [(corpus.messages, corpus.start_sample)]
    return {
        feature_roles: [role_rows(extraction_id, table, len(frequency), *one) for one in said],
        features: _feature_rows(extraction_id, statistics),
        feature_example_lists: feature_lists(extraction_id, examples, "examples"),
        feature_draw_lists: () if drawn is None else feature_lists(extraction_id, drawn, "draws"),
        sample_feature_lists: sample_lists(extraction_id, len(frequency), pairs),
        strongest_token_lists: token_lists(
            extraction_id, table, examples.max_tokens, statistics.max_activation.numpy(), frequency
        ),
    }


def _listed(
    corpus: CorpusSamples, table: "TopKTable | Draws", leading: tuple[np.ndarray, ...], display_tokens: Display
) -> Listed:
    """Examples or draws with their tokens."""
    sample_index, offsets, positions = table.sample_index.numpy(), table.firing_offsets.numpy(), table.positions.numpy()

    def strongest_token(rows: slice) -> np.ndarray:  # every example has a firing
        return corpus.token_ids[sample_index[rows] - corpus.start_sample, positions[offsets[:-1][rows]]]

    return Listed(
        neuron_index=table.neuron_index.numpy(),
        leading=(*leading, sample_index),
        max_activation=table.max_activation.numpy(),
        max_tokens=displayed(map(strongest_token, some_at_once(len(sample_index))), display_tokens),
        firing_offsets=offsets,
        positions=positions,
        activations=table.activations.numpy(),
    )


def _corpus_id(connection: sa.Connection, corpus: CorpusSamples) -> int:
    """The id of a corpus in the database, which may be shorter if the corpus has grown; otherwise of a new row."""
    count = len(corpus.token_ids)
    texts = {name: storable(getattr(corpus, name)) for name in ("source", "tokenizer", "packing")}
    described = {**texts, "start_sample": corpus.start_sample}
    same = [corpora.c[name] == value for name, value in described.items()]
    query = sa.select(corpora).where(*same, corpora.c.sample_count <= count).order_by(corpora.c.sample_count.desc())
    for row in connection.execute(query).all():
        if corpus.content_fingerprint(row.sample_count) == row.fingerprint:
            grown = {"sample_count": count, "fingerprint": corpus.content_fingerprint(count), **_special(corpus)}
            connection.execute(sa.update(corpora).where(corpora.c.id == row.id).values(grown))
            return int(row.id)
    new = {**described, "sample_count": count, "fingerprint": corpus.content_fingerprint(count), **_special(corpus)}
    return _inserted_id(connection.execute(sa.insert(corpora).values(new)))


def _special(corpus: CorpusSamples) -> dict[str, list[int]]:
    """The column of special tokens, where they are known."""
    return {} if corpus.special_ids is None else {"special_ids": list(corpus.special_ids)}


def _upsert_extraction(
    connection: sa.Connection,
    extraction: ExtractionRow,
    corpus_id: int,
    statistics: FeatureStatistics,
    numerics: list[dict[str, Any]] | None,
) -> int:
    now = dt.datetime.now(dt.UTC)
    values = {
        **extraction._asdict(),
        "corpus_id": corpus_id,
        "sample_count": statistics.samples_seen,
        "token_count": statistics.tokens_seen,
        "finished_at": now,
        "numerics": numerics,
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


def _feature_rows(extraction_id: int, statistics: FeatureStatistics) -> Iterator[pa.Table]:
    """One row for every feature, some of them at a time: a feature's counts are 2 kB on the way."""
    for rows in some_at_once(len(statistics.sample_count), _FEATURES_AT_ONCE):
        known = {one.name: getattr(statistics, one.name) for one in STATISTICS}
        part: dict[str, Any] = {name: None if tensor is None else tensor[rows] for name, tensor in known.items()}
        yield pa.table(_feature_columns(extraction_id, statistics._replace(**part), rows.start))


def _feature_columns(extraction_id: int, statistics: FeatureStatistics, first_feature: int) -> dict[str, Any]:
    """A row for every feature; a dead one has zero counts and no maximum."""
    dead = statistics.sample_count.numpy() == 0
    columns = {
        column.name: _statistic_column(column, statistics, dead, known=getattr(statistics, one.name) is not None)
        for one in STATISTICS
        for column in one.columns
    }
    numbers = pa.array(np.arange(len(dead)) + first_feature)
    columns |= {
        "density_bin": _bins(statistics.token_count.numpy() / max(1, statistics.tokens_seen), DENSITY_EDGES, dead),
        "max_bin": _bins(statistics.max_activation.numpy().astype(np.float64), MAX_EDGES, dead),
    }
    return {"extraction_id": constant(extraction_id, len(dead)), "neuron_index": numbers, **columns}


def _bins(values: np.ndarray, edges: tuple[float, ...], dead: np.ndarray) -> pa.Array:
    """``bins.bin_of`` of the values [F], NULL where a feature never fires."""
    return pa.array(np.searchsorted(edges, values, "right"), mask=dead)


def _statistic_column(
    column: StatisticColumn, statistics: FeatureStatistics, dead: np.ndarray, *, known: bool
) -> pa.Array:
    """A column of ``features``; NULL if the statistic is not ``known``, because chunks of an earlier version do not
    have it."""
    if not known:
        return pa.nulls(len(dead), pa.float64())
    values = column.values(statistics)
    if column.type == "integers":
        return lists(np.full(len(dead), values.shape[1]), pa.array(values.reshape(-1)))
    return pa.array(values, mask=dead if column.nullable else None)


def delete_unreferenced(connection: sa.Connection, except_corpus: int | None = None) -> None:
    """Delete samples that no example names, except in ``except_corpus``, and corpora that no extraction uses."""
    for corpus_id in connection.scalars(sa.select(corpora.c.id).where(corpora.c.id != (except_corpus or 0))).all():
        of_corpus = samples.c.corpus_id == corpus_id
        sharing = sa.select(extractions.c.id).where(extractions.c.corpus_id == corpus_id)
        named = sa.select(sample_feature_lists.c.sample_index).where(sample_feature_lists.c.extraction_id.in_(sharing))
        # A set difference, computed once. PostgreSQL would evaluate NOT IN (…) again for every sample, once
        # the examples are too many for its work_mem.
        unnamed = sa.select(samples.c.sample_index).where(of_corpus).except_(named)
        backend_of(connection).delete(connection, samples, of_corpus & samples.c.sample_index.in_(unnamed))
        _delete_messages_without_sample(connection, corpus_id)
    used = sa.exists().where(extractions.c.corpus_id == corpora.c.id)
    if connection.execute(sa.delete(corpora).where(~used)).rowcount:
        backend_of(connection).text_index.forget_corpora(connection)


def _delete_messages_without_sample(connection: sa.Connection, corpus_id: int) -> None:
    said = sample_messages.c
    there = sa.select(samples.c.sample_index).where(samples.c.corpus_id == corpus_id)
    gone = sa.select(said.sample_index).where(said.corpus_id == corpus_id).except_(there)
    doomed = (said.corpus_id == corpus_id) & said.sample_index.in_(gone)
    backend_of(connection).delete(connection, sample_messages, doomed)
