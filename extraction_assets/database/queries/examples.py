"""One feature: its statistics, its strongest examples and its draws, with their samples and who speaks there."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from extraction_assets.database.queries.extractions import UnknownResultError
from extraction_assets.database.tables import extractions, features, sample_messages, samples
from extraction_assets.database.views import feature_activations, feature_draws
from extraction_assets.engine.corpora.message_spans import MessageSpan


class Example(NamedTuple):
    """One example of a feature with the sample it stands in."""

    rank: int
    sample_index: int
    max_activation: float
    max_token: str
    document_id: str
    first_token: int
    tokens: list[str]
    """One display string for each token of the sample."""
    positions: list[int]
    """Positions of the firings, strongest first."""
    activations: list[float]
    token_ids: Sequence[int] = ()
    """Of the sample, one for each of ``tokens``."""
    messages: tuple[MessageSpan, ...] = ()
    """Who speaks where, by position; nothing if the corpus holds no chats."""


class Draw(NamedTuple):
    """One example of a feature that was drawn, with the sample it stands in."""

    interval: int
    """Of the sample's maximum; -1 if it was drawn from all samples in which the feature fires."""
    rank: int
    """Within the interval."""
    sample_index: int
    max_activation: float
    max_token: str
    document_id: str
    first_token: int
    tokens: list[str]
    positions: list[int]
    activations: list[float]
    token_ids: Sequence[int] = ()
    messages: tuple[MessageSpan, ...] = ()


_OF_SAMPLES = ("document_id", "first_token", "tokens", "token_ids")
_Found = TypeVar("_Found", Example, Draw)


def find_feature(connection: sa.Connection, extraction_id: int, neuron_index: int) -> sa.Row[Any]:
    """Statistics of one feature. Raises UnknownResultError."""
    storable = 0 <= neuron_index < 2**63
    row = connection.execute(feature_query(extraction_id, neuron_index)).one_or_none() if storable else None
    if row is None:
        query = sa.select(extractions.c.latent_dim).where(extractions.c.id == extraction_id)
        last = (connection.scalar(query) or 0) - 1
        raise UnknownResultError(f"no feature {neuron_index}: features are numbered from 0 to {last}")
    return row


def feature_query(extraction_id: int, neuron_index: int) -> sa.Select[Any]:
    """All columns of ``features`` of one feature."""
    query = sa.select(features).where(
        features.c.extraction_id == extraction_id, features.c.neuron_index == neuron_index
    )
    return query.execution_options(about="the statistics of the feature")


def examples_of(connection: sa.Connection, extraction_id: int, neuron_index: int, limit: int = 10) -> list[Example]:
    """The strongest examples of a feature, with their samples."""
    query = examples_query(extraction_id, neuron_index, limit)
    return _with_messages(connection, extraction_id, [Example(*row) for row in connection.execute(query)])


def draws_of(connection: sa.Connection, extraction_id: int, neuron_index: int) -> list[Draw]:
    """The draws of a feature with their samples, by interval; none for what was merged before there were draws."""
    query = draws_query(extraction_id, neuron_index)
    return _with_messages(connection, extraction_id, [Draw(*row) for row in connection.execute(query)])


def examples_query(extraction_id: int, neuron_index: int, limit: int) -> sa.Select[Any]:
    """The fields of ``Example``, strongest first."""
    query = _with_samples(feature_activations, Example._fields, extraction_id, neuron_index)
    return query.order_by(feature_activations.c.rank).limit(limit).execution_options(about="its strongest examples")


def draws_query(extraction_id: int, neuron_index: int) -> sa.Select[Any]:
    """The fields of ``Draw``, by interval."""
    query = _with_samples(feature_draws, Draw._fields, extraction_id, neuron_index)
    query = query.order_by(feature_draws.c.interval, feature_draws.c.rank)
    return query.execution_options(about="what was drawn from its intervals, and from all its samples (-1)")


def messages_query(extraction_id: int, sample_indices: Iterable[int]) -> sa.Select[Any]:
    """``sample_index``, ``role``, ``start`` and ``stop`` of the messages of some samples, in their order."""
    said = sample_messages.c
    corpus_id = sa.select(extractions.c.corpus_id).where(extractions.c.id == extraction_id).scalar_subquery()
    query = (
        sa.select(said.sample_index, said.role, said.start, said.stop)
        .where(said.corpus_id == corpus_id, said.sample_index.in_(sorted(set(sample_indices))))
        .order_by(said.sample_index, said.number)
    )
    return query.execution_options(about="who speaks in these samples")


def _with_samples(
    view: sa.TableClause, names: tuple[str, ...], extraction_id: int, neuron_index: int
) -> sa.Select[Any]:
    source = view.join(extractions, extractions.c.id == view.c.extraction_id).join(
        samples,
        (samples.c.corpus_id == extractions.c.corpus_id) & (samples.c.sample_index == view.c.sample_index),
    )
    columns = [samples.c[name] if name in _OF_SAMPLES else view.c[name] for name in names if name != "messages"]
    return (
        sa.select(*columns)
        .select_from(source)
        .where(view.c.extraction_id == extraction_id, view.c.neuron_index == neuron_index)
    )


def _with_messages(connection: sa.Connection, extraction_id: int, found: list[_Found]) -> list[_Found]:
    """Examples with the messages of their samples."""
    said: dict[int, list[MessageSpan]] = {}
    query = messages_query(extraction_id, (one.sample_index for one in found))
    for sample_index, *span in connection.execute(query):
        said.setdefault(sample_index, []).append(MessageSpan(*span))
    return [one._replace(messages=tuple(said.get(one.sample_index, ()))) for one in found]
