"""What one feature writes, by the weights alone: its logit lens, and the nearest decoder rows."""

from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.tables import directions, feature_logits


class TokenLogit(NamedTuple):
    """A token of the vocabulary and what a feature's direction gives it."""

    token_id: int
    token: str
    """As people see it."""
    logit: float


class Logits(NamedTuple):
    """The logit lens of one feature."""

    top: list[TokenLogit]
    """Largest first."""
    bottom: list[TokenLogit]
    """Smallest first."""
    mean: float
    """Over the vocabulary, as the next ones."""
    std: float
    minimum: float
    maximum: float
    histogram: list[int]
    """Tokens in equal bins from minimum to maximum."""


class Neighbour(NamedTuple):
    """A feature whose decoder row is among the nearest."""

    sae: str
    neuron_index: int
    cosine: float


def directions_query(name: str, sae: str) -> sa.Select[Any]:
    """All columns of ``directions`` of one SAE."""
    query = sa.select(directions).where(directions.c.name == name, directions.c.sae == sae)
    return query.execution_options(about="what the weights gave")


def find_directions(connection: sa.Connection, name: str, sae: str) -> sa.Row[Any] | None:
    """What is stored of an SAE's directions: ``norm`` says how the logit lens was taken, ``undefined`` why there is
    none; None where they were not computed."""
    return connection.execute(directions_query(name, sae)).one_or_none()


def logits_query(directions_id: int, neuron_index: int) -> sa.Select[Any]:
    """The fields of ``Logits`` of one feature."""
    query = _of_feature([feature_logits.c[name] for name in Logits._fields], directions_id, neuron_index)
    return query.execution_options(about="its logit lens")


def logits_of(connection: sa.Connection, directions_id: int, neuron_index: int) -> Logits | None:
    """The logit lens of a feature; None where it is not defined."""
    row = connection.execute(logits_query(directions_id, neuron_index)).one_or_none()
    if row is None or row.top is None:
        return None
    top, bottom = ([TokenLogit(*one) for one in tokens] for tokens in (row.top, row.bottom))
    return Logits(top, bottom, *row[2:])


def nearest_query(directions_id: int, neuron_index: int) -> sa.Select[Any]:
    """``neighbours`` of one feature."""
    query = _of_feature([feature_logits.c.neighbours], directions_id, neuron_index)
    return query.execution_options(about="the nearest decoder rows")


def nearest_of(connection: sa.Connection, directions_id: int, neuron_index: int) -> list[Neighbour]:
    """The nearest decoder rows, strongest first: up to 20 of the SAE itself, then up to 20 of the extraction's other
    SAEs together."""
    found = connection.scalar(nearest_query(directions_id, neuron_index))
    return [Neighbour(*one) for one in found or ()]


def _of_feature(columns: list[Any], directions_id: int, neuron_index: int) -> sa.Select[Any]:
    chosen = feature_logits.c
    return sa.select(*columns).where(chosen.directions_id == directions_id, chosen.neuron_index == neuron_index)
