"""A page of the list of an SAE's features: in an order, from the key of a row on.

A page goes on from the key of the last row, never from an offset, so the thousandth page costs as much as the first.
"""

from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.queries.feature_filter import FeatureFilter, Listing, conditions
from extraction_assets.database.tables import feature_flags, feature_labels, features

Sort = Literal["number", "density", "maximum", "mean", "std", "found", "label", "flags"]

COLUMNS: dict[Sort, sa.ColumnElement[Any]] = {
    "number": features.c.neuron_index,
    "density": features.c.token_frequency,
    "maximum": features.c.max_activation,
    "mean": features.c.mean_activation,
    "std": features.c.std_activation,
}
"""Columns that a list can be sorted by. ``found`` comes with a search: how often the feature was found. ``label`` is
what people call a feature, ``flags`` how many it has."""

WITH_UNKNOWN: tuple[Sort, ...] = ("maximum", "mean", "std", "label", "flags")
"""Orders in which some features have no place: those without the value come last."""

SHOWN = tuple(COLUMNS.values())
"""Columns of a row of the list."""


class Key(NamedTuple):
    """Where a page ends: the value that the list is sorted by, None for a feature without it, and the feature."""

    value: float | str | None
    neuron_index: int


class ListedRow(NamedTuple):
    """One row of the list."""

    neuron_index: int
    density: float
    maximum: float | None
    """None for a feature that never fires; so are the two below, also where chunks of an earlier version have none."""
    mean: float | None
    std: float | None
    sorted_by: float | str | None


class FeaturePage(NamedTuple):
    """A page of the list."""

    rows: list[ListedRow]
    before: bool
    """Whether rows come before it."""
    after: bool
    """Whether rows come after it."""


def page_of_features(
    connection: sa.Connection,
    listing: Listing,
    sort: Sort,
    *,
    descending: bool,
    limit: int,
    after: Key | None = None,
    before: Key | None = None,
) -> FeaturePage:
    """At most ``limit`` rows after a key, or the last ones before a key, or the first ones.

    Features without the value that the list is sorted by come last, in the order of their numbers.
    """
    start, backwards = (before, True) if before is not None else (after, False)
    rows: list[ListedRow] = []
    for known in _parts(sort, start, backwards):
        missing = limit + 1 - len(rows)
        of_part = start if start is not None and known == (start.value is not None) else None
        query = page_select(
            listing, sort, descending=descending, limit=missing, start=of_part, backwards=backwards, known=known
        )
        rows += [ListedRow(*row) for row in connection.execute(query)]
        if len(rows) > limit:
            break
    more, rows = len(rows) > limit, rows[:limit]
    if backwards:
        return FeaturePage(rows[::-1], before=more, after=True)
    return FeaturePage(rows, before=start is not None, after=more)


def _parts(sort: Sort, start: Key | None, backwards: bool) -> list[bool]:
    """The parts of a list to look at, in order: features with a value (True), then those without it."""
    if sort not in WITH_UNKNOWN:
        return [True]
    if start is None:
        return [True, False]
    if start.value is None:
        return [False, True] if backwards else [False]
    return [True] if backwards else [True, False]


def page_select(
    listing: Listing,
    sort: Sort,
    *,
    descending: bool,
    limit: int,
    start: Key | None = None,
    backwards: bool = False,
    known: bool = True,
) -> sa.Select[Any]:
    """Rows of the list from ``start`` on (not included), in its order or backwards.

    ``known`` chooses the features that have the value that the list is sorted by, or those without it. Of equal values
    the lower number comes first.
    """
    if sort == "found":
        return _found_page(listing, descending=descending, limit=limit, start=start, backwards=backwards)
    if sort in ("label", "flags"):
        of_few, value = _of_few(listing, _values(listing, sort), known=known)
        return _ordered(of_few, value, start, descending != backwards, backwards).limit(limit)
    column, number, down = COLUMNS[sort], features.c.neuron_index, descending != backwards
    shown = column if known else sa.null()
    query = sa.select(*SHOWN, shown.label("sorted_by")).where(*conditions(listing, walks=True))
    if not known:
        query = query.where(column.is_(None))
    elif sort in WITH_UNKNOWN:
        query = query.where(column.is_not(None))
    if sort == "number":
        beyond = [] if start is None else [number < start.neuron_index if down else number > start.neuron_index]
        order: list[sa.ColumnElement[Any]] = [number.desc() if down else number]
    else:
        beyond = [] if start is None else _beyond(column, number, start, down, backwards)
        order = [number.desc() if backwards else number]
        if known:
            order.insert(0, column.desc() if down else column)
    return query.where(*beyond).order_by(*order).limit(limit).execution_options(about="features of this page")


def _values(listing: Listing, sort: Sort) -> sa.Subquery:
    """(neuron_index, value) of the features that have a value of another table to be sorted by."""
    if sort == "label":
        labels = feature_labels.c
        named = sa.select(labels.neuron_index, sa.func.lower(labels.label).label("value"))
        named = named.where(labels.name == listing.name, labels.sae == listing.sae, labels.label.is_not(None))
        return named.subquery("sorted")
    flags = feature_flags.c
    counted = sa.select(flags.neuron_index, sa.func.count().label("value"))
    return counted.where(flags.extraction_id == listing.extraction_id).group_by(flags.neuron_index).subquery("sorted")


def _of_few(
    listing: Listing, values: sa.Subquery, *, known: bool
) -> tuple[sa.Select[Any], sa.ColumnElement[Any] | None]:
    """The features with a value, and the column that has it; or those without one, and None."""
    number = features.c.neuron_index
    if known:
        query = sa.select(*SHOWN, values.c.value.label("sorted_by"))
        query = query.join_from(values, features, number == values.c.neuron_index).where(*conditions(listing))
        return query, values.c.value
    query = sa.select(*SHOWN, sa.null().label("sorted_by")).where(*conditions(listing, walks=True))
    return query.where(number.not_in(sa.select(values.c.neuron_index))), None


def _ordered(
    query: sa.Select[Any], value: sa.ColumnElement[Any] | None, start: Key | None, down: bool, backwards: bool
) -> sa.Select[Any]:
    """The rows by value, equal ones by number, from a key on."""
    number = features.c.neuron_index
    order: list[sa.ColumnElement[Any]] = [number.desc() if backwards else number]
    if value is not None:
        order.insert(0, value.desc() if down else value)
    if start is not None:
        query = query.where(*_beyond(number if value is None else value, number, start, down, backwards))
    return query.order_by(*order).execution_options(about="features of this page")


def _found_page(
    listing: Listing, *, descending: bool, limit: int, start: Key | None, backwards: bool
) -> sa.Select[Any]:
    """``page_select`` in the order of how often a search found a feature."""
    assert listing.found is not None, "a list is sorted so only if it is searched"
    found, down = listing.found.hits.subquery("found"), descending != backwards
    hits, number = found.c.hits, found.c.neuron_index
    beyond = [] if start is None else _beyond(hits, number, start, down, backwards)
    order = [hits.desc() if down else hits, number.desc() if backwards else number]
    if listing.wanted == FeatureFilter():  # of many features, only those of the page are looked up
        found = sa.select(number, hits).where(*beyond).order_by(*order).limit(limit).subquery("page")
        hits, number, beyond = found.c.hits, found.c.neuron_index, []
        order = [hits.desc() if down else hits, number.desc() if backwards else number]
    query = sa.select(*SHOWN, hits.label("sorted_by")).join_from(found, features, features.c.neuron_index == number)
    query = query.where(*conditions(listing._replace(found=None)), *beyond).order_by(*order).limit(limit)
    return query.execution_options(about="features of this page")


def _beyond(
    column: sa.ColumnElement[Any], number: sa.ColumnElement[Any], start: Key, down: bool, backwards: bool
) -> list[sa.ColumnElement[bool]]:
    """Conditions for what comes after a key: a range that an index finds, and what it has too much of."""
    tie = number < start.neuron_index if backwards else number > start.neuron_index
    if start.value is None:
        return [tie]
    strictly = column < start.value if down else column > start.value
    reached = column <= start.value if down else column >= start.value
    return [reached, strictly | tie]
