"""Labels, marks and notes that people have written: of a feature, of a list, counted, searched.

They are kept by the names of extraction and SAE, so that they outlive every merge.
"""

import datetime as dt
from collections.abc import Collection
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.tables import feature_labels

MARKS = ("interesting", "polysemantic", "dead end")
"""What a feature can be marked as."""

LONGEST_LABEL = 200
LONGEST_NOTE = 10_000
"""In characters."""


class Label(NamedTuple):
    """What people say of one feature."""

    name: str
    """Of the extraction."""
    sae: str
    neuron_index: int
    label: str
    """A few words; empty if there is a mark or a note alone."""
    mark: str | None
    """One of ``MARKS``."""
    note: str
    updated_at: dt.datetime
    """In UTC."""


class LabelCounts(NamedTuple):
    """Features of an SAE that people have said something of."""

    labelled: int
    """Those with a label, a mark or a note."""
    marks: dict[str, int]
    """Those with each mark, in the order of ``MARKS``."""


def labels_select(name: str, sae: str | None = None, indices: Collection[int] | None = None) -> sa.Select[Any]:
    """What was written of an extraction, or of one of its SAEs, or of some features of that, by SAE and feature."""
    c = feature_labels.c
    query = sa.select(*(c[field] for field in Label._fields)).where(c.name == name)
    if sae is not None:
        query = query.where(c.sae == sae)
    if indices is not None:
        query = query.where(c.neuron_index.in_(indices))
    return query.order_by(c.sae, c.neuron_index)


def list_labels(connection: sa.Connection, name: str, sae: str | None = None) -> list[Label]:
    """Every label of an extraction, or of one of its SAEs, by SAE and feature."""
    return [_label(row) for row in connection.execute(labels_select(name, sae))]


def labels_of(connection: sa.Connection, name: str, sae: str, indices: Collection[int]) -> dict[int, Label]:
    """The labels of some features, such as those of a page, by ``neuron_index``."""
    rows = connection.execute(labels_select(name, sae, indices))
    return {label.neuron_index: label for label in map(_label, rows)}


def find_label(connection: sa.Connection, name: str, sae: str, neuron_index: int) -> Label | None:
    """What was written of one feature; None if nothing was."""
    return labels_of(connection, name, sae, [neuron_index]).get(neuron_index)


def mark_counts_select(name: str, sae: str) -> sa.Select[Any]:
    """(mark, features) of an SAE; mark NULL stands for features with a label or a note alone."""
    c = feature_labels.c
    chosen = sa.select(c.mark, sa.func.count().label("features")).where(c.name == name, c.sae == sae)
    return chosen.group_by(c.mark).order_by(c.mark)


def label_counts(connection: sa.Connection, name: str, sae: str) -> LabelCounts:
    """How many features of an SAE people have labelled, and how many have each mark."""
    found = {mark: int(count) for mark, count in connection.execute(mark_counts_select(name, sae))}
    return LabelCounts(sum(found.values()), {mark: found.get(mark, 0) for mark in MARKS})


def _label(row: sa.Row[Any]) -> Label:
    """An empty text is stored as NULL. SQLite gives a time without its zone, which is UTC."""
    moment: dt.datetime = row.updated_at
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    moment = moment.astimezone(dt.UTC)
    return Label(row.name, row.sae, row.neuron_index, row.label or "", row.mark, row.note or "", moment)
