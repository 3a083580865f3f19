"""Samples: one with the stored features that fire in it, and those of a document."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.queries.examples import messages_query
from extraction_assets.database.queries.extractions import UnknownResultError
from extraction_assets.database.tables import features, sample_feature_lists, samples
from extraction_assets.database.views import feature_activations, feature_draws
from extraction_assets.engine.corpora.message_spans import MessageSpan


class Sample(NamedTuple):
    """A sample that some example names."""

    sample_index: int
    document_id: str
    first_token: int
    token_ids: list[int]
    tokens: list[str]
    messages: tuple[MessageSpan, ...] = ()


class SampleFiring(NamedTuple):
    """A feature in a sample."""

    neuron_index: int
    positions: list[int]
    """Of its firings, strongest first."""
    activations: list[float]


class DocumentPosition(NamedTuple):
    """Where a sample stands in its document."""

    first_token: int
    sample_index: int


def find_sample(connection: sa.Connection, extraction: sa.Row[Any], sample_index: int) -> Sample:
    """A stored sample of the corpus of an extraction. Raises UnknownResultError."""
    storable = sample_index < 2**63
    row = connection.execute(sample_query(extraction.corpus_id, sample_index)).one_or_none() if storable else None
    if row is None:
        raise UnknownResultError(
            f"sample {sample_index} is not stored: the database holds the samples that an example of some feature names"
        )
    said = connection.execute(messages_query(extraction.id, [sample_index]))
    return Sample(*row)._replace(messages=tuple(MessageSpan(role, start, stop) for _, role, start, stop in said))


def sample_query(corpus_id: int, sample_index: int) -> sa.Select[Any]:
    """The fields of ``Sample`` but its messages."""
    columns = [samples.c[name] for name in Sample._fields if name != "messages"]
    query = sa.select(*columns).where(samples.c.corpus_id == corpus_id, samples.c.sample_index == sample_index)
    return query.execution_options(about="the sample")


def features_of_sample(connection: sa.Connection, extraction_id: int, sample_index: int) -> list[tuple[int, float]]:
    """(neuron_index, maximum in the sample) of every feature with an example or a draw of a sample, strongest first."""
    found = connection.scalar(sample_features_query(extraction_id, sample_index))
    return [(int(index), float(value)) for index, value in found or ()]


def sample_features_query(extraction_id: int, sample_index: int) -> sa.Select[Any]:
    """The list of a sample's features: one row, however many there are."""
    listed = sample_feature_lists.c
    query = sa.select(listed.features).where(listed.extraction_id == extraction_id, listed.sample_index == sample_index)
    return query.execution_options(about="features with an example or a draw of the sample")


def firings_in_sample(
    connection: sa.Connection, extraction_id: int, sample_index: int, neuron_indices: Iterable[int]
) -> dict[int, SampleFiring]:
    """Where some features fire in a sample, by ``neuron_index``; without those that have no example or draw of it."""
    found: dict[int, SampleFiring] = {}
    chosen = sorted(set(neuron_indices))
    if not chosen:
        return found
    for view, about in ((feature_activations, "where they fire, in examples"), (feature_draws, "where, in draws")):
        missing = [index for index in chosen if index not in found]
        if missing:
            query = firings_query(view, extraction_id, sample_index, missing).execution_options(about=about)
            found |= {row.neuron_index: SampleFiring(*row) for row in connection.execute(query)}
    return found


def firings_query(
    view: sa.TableClause, extraction_id: int, sample_index: int, neuron_indices: Iterable[int]
) -> sa.Select[Any]:
    """The fields of ``SampleFiring`` from the view of examples or that of draws."""
    return sa.select(*(view.c[name] for name in SampleFiring._fields)).where(
        view.c.extraction_id == extraction_id,
        view.c.neuron_index.in_(sorted(set(neuron_indices))),
        view.c.sample_index == sample_index,
    )


def maxima_query(extraction_id: int, neuron_indices: Iterable[int]) -> sa.Select[Any]:
    """(neuron_index, maximum over the corpus) of some features."""
    query = sa.select(features.c.neuron_index, features.c.max_activation).where(
        features.c.extraction_id == extraction_id, features.c.neuron_index.in_(sorted(set(neuron_indices)))
    )
    return query.execution_options(about="the maxima of these features")


def where_query(corpus_id: int, sample_indices: Iterable[int]) -> sa.Select[Any]:
    """(sample_index, document_id, first_token) of those of some samples that are stored."""
    query = sa.select(samples.c.sample_index, samples.c.document_id, samples.c.first_token).where(
        samples.c.corpus_id == corpus_id, samples.c.sample_index.in_(sorted(set(sample_indices)))
    )
    return query.execution_options(about="where the samples of further intervals stand")


def document_query(corpus_id: int, document_id: str, after: DocumentPosition | None, limit: int) -> sa.Select[Any]:
    """(sample_index, first_token, tokens, token_ids) of the stored samples that begin in a document, in its order."""
    found = samples.c
    query = (
        sa.select(found.sample_index, found.first_token, found.tokens, found.token_ids)
        .where(found.corpus_id == corpus_id, found.document_id == document_id)
        .order_by(found.first_token, found.sample_index)
        .limit(limit)
    )
    if after is not None:
        query = query.where(
            found.first_token >= after.first_token,
            (found.first_token > after.first_token) | (found.sample_index > after.sample_index),
        )
    return query.execution_options(about="stored samples of the document")
