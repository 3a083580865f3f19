"""The list of an SAE's features: sorted, filtered, a page at a time, and counted for facets and for the plot.

A page goes on from the key of the last row, never from an offset, so the thousandth page costs as much as the first.
Filters by density and maximum are conditions on the bins of ``bins.py`` where a bound is an edge of theirs; the index
``ix_features_bins`` alone answers whatever is filtered.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.bins import DENSITY_EDGES, MAX_EDGES, bin_of
from extraction_assets.database.queries.labels import MARKS as MARKS
from extraction_assets.database.tables import (
    feature_example_lists,
    feature_flags,
    feature_labels,
    feature_tokens,
    features,
    samples,
)

Sort = Literal["number", "density", "maximum", "mean", "std", "found"]
Flag = Literal["dead", "dense", "duplicate", "first_position", "one_token"]

FLAGS: tuple[Flag, ...] = ("dead", "dense", "one_token", "first_position", "duplicate")
LABELLED = "labelled"

COLUMNS: dict[Sort, sa.ColumnElement[Any]] = {
    "number": features.c.neuron_index,
    "density": features.c.token_frequency,
    "maximum": features.c.max_activation,
    "mean": features.c.mean_activation,
    "std": features.c.std_activation,
}
"""What a list can be sorted by. ``found`` comes with a search: how often the feature was found."""

WITH_UNKNOWN: tuple[Sort, ...] = ("maximum", "mean", "std")
"""Orders in which some features have no place: those without the value come last."""

SHOWN = tuple(COLUMNS.values())
"""Columns of a row of the list."""

SAME_EDGE = 1e-12
"""Numbers that differ by less, relatively, are the same bound: 0.1 has several spellings in binary."""


class Range(NamedTuple):
    """From ``minimum`` on to below ``maximum``; None where it is open."""

    minimum: float | None = None
    maximum: float | None = None

    @property
    def is_open(self) -> bool:
        return self == Range()


class FeatureFilter(NamedTuple):
    """Which features of an extraction are listed. Every field narrows it down further."""

    density: Range = Range()
    """Share of tokens."""
    maximum: Range = Range()
    mean: Range = Range()
    std: Range = Range()
    flags: tuple[str, ...] = ()
    """Features with all of them."""
    label: str | None = None
    """``LABELLED`` or one of ``MARKS``."""


class Found(NamedTuple):
    """What a search found (``search.py``)."""

    hits: sa.Select[Any]
    """(neuron_index, hits): each feature once."""
    number: sa.ColumnElement[int]
    """The column that ``hits`` takes its numbers from."""
    members: sa.Select[Any]
    """neuron_index alone, perhaps more than once."""
    holds: sa.ColumnElement[bool] | None = None
    """The same as a condition on one row of ``features``, if one feature can be looked up."""


class Listing(NamedTuple):
    """What a list is of: a merged (extraction, SAE), a filter, and what a search found (``search.py``)."""

    extraction_id: int
    name: str
    sae: str
    wanted: FeatureFilter = FeatureFilter()
    found: Found | None = None
    is_large: bool = False
    """Whether so many features are listed that a walk through all of them meets one soon."""


class Key(NamedTuple):
    """Where a page ends: the value that the list is sorted by, None for a feature without it, and the feature."""

    value: float | None
    neuron_index: int


class ListedRow(NamedTuple):
    """One row of the list."""

    neuron_index: int
    density: float
    maximum: float | None
    """None for a feature that never fires; so are the two below, also where chunks of an earlier version have none."""
    mean: float | None
    std: float | None
    sorted_by: float | None


class FeaturePage(NamedTuple):
    """A page of the list."""

    rows: list[ListedRow]
    before: bool
    """Whether rows come before it."""
    after: bool
    """Whether rows come after it."""


class Bin(NamedTuple):
    """How many features lie in one cell of the plot; None for those that never fire."""

    density_bin: int | None
    max_bin: int | None
    features: int


def feature_page(
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


def conditions(listing: Listing, *without: str, walks: bool = False) -> list[sa.ColumnElement[bool]]:
    """What the rows of ``features`` fulfil that a listing shows, leaving out the filters named in ``without``.

    ``walks``: the query goes through the features in its order until a page is full. If the list is large, each row is
    then looked at by itself, and no set of features is made first.
    """
    wanted, column, alone = listing.wanted, features.c, walks and listing.is_large
    found: list[sa.ColumnElement[bool]] = [column.extraction_id == listing.extraction_id]
    if "density" not in without:
        found += _in_bins(wanted.density, column.token_frequency, column.density_bin, DENSITY_EDGES, alone)
    if "maximum" not in without:
        found += _in_bins(wanted.maximum, column.max_activation, column.max_bin, MAX_EDGES, alone)
    found += [*_in_range(wanted.mean, column.mean_activation), *_in_range(wanted.std, column.std_activation)]
    found += [_is_flagged(listing.extraction_id, flag, column.neuron_index, alone) for flag in wanted.flags]
    if wanted.label is not None and "label" not in without:
        found.append(column.neuron_index.in_(labelled_select(listing, wanted.label)))
    if listing.found is not None:
        member, holds = column.neuron_index.in_(listing.found.members), listing.found.holds
        found.append(holds if alone and holds is not None else member)
    return found


def _no_index(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The column in a form for which no index is looked for: one that has every column that a query reads answers a
    filter faster than one that finds rows, each of which must then be read."""
    return column + 0


def _in_range(limits: Range, column: sa.ColumnElement[Any]) -> Iterable[sa.ColumnElement[bool]]:
    if limits.minimum is not None:
        yield _no_index(column) >= limits.minimum
    if limits.maximum is not None:
        yield _no_index(column) < limits.maximum


def _in_bins(
    limits: Range, column: sa.ColumnElement[Any], number: sa.ColumnElement[Any], edges: tuple[float, ...], alone: bool
) -> Iterable[sa.ColumnElement[bool]]:
    """A range as a range of bins, and the exact bounds where they are not edges of bins; ``alone``: the bins of a row
    are looked at, not looked for."""
    low, high = limits
    number = _no_index(number) if alone else number
    if low is not None:
        edge = _edge(low, edges)
        yield number >= bin_of(low if edge is None else edge, edges)
        if edge is None:
            yield _no_index(column) >= low
    if high is not None:
        edge = _edge(high, edges)
        if edge is None:
            yield number <= bin_of(high, edges)
            yield _no_index(column) < high
        else:
            yield number < bin_of(edge, edges)


def bins_within(limits: Range, edges: tuple[float, ...]) -> range | None:
    """The bins that a range has; None if it ends inside of one."""
    low, high = (None if bound is None else _edge(bound, edges) for bound in limits)
    if (low is None) != (limits.minimum is None) or (high is None) != (limits.maximum is None):
        return None
    first = 0 if low is None else bisect_right(edges, low)
    return range(first, len(edges) + 1 if high is None else bisect_right(edges, high))


def _edge(value: float, edges: tuple[float, ...]) -> float | None:
    """The edge that a bound is, but for the spelling of its last digit."""
    near = min(edges, key=lambda edge: abs(edge - value))
    return near if abs(near - value) <= SAME_EDGE * abs(near) else None


def _is_flagged(extraction_id: int, flag: str, number: sa.ColumnElement[Any], alone: bool) -> sa.ColumnElement[bool]:
    """Whether a feature has a flag: one of a set that is made once, or ``alone`` looked up."""
    flags = feature_flags.alias("flagged").c
    of_flag = (flags.extraction_id == extraction_id, flags.flag == flag)
    return (
        sa.exists().where(*of_flag, flags.neuron_index == number)
        if alone
        else number.in_(sa.select(flags.neuron_index).where(*of_flag))
    )


def labelled_select(listing: Listing, label: str) -> sa.Select[Any]:
    """``neuron_index`` of the features that people have labelled, or marked as ``label`` says."""
    stored = feature_labels.c
    query = sa.select(stored.neuron_index).where(stored.name == listing.name, stored.sae == listing.sae)
    return query.where(stored.label.is_not(None) if label == LABELLED else stored.mark == label)


def bins_select(listing: Listing) -> sa.Select[Any]:
    """How many features lie in each cell of the plot: those that are listed, whatever their density and maximum."""
    cell = (features.c.density_bin, features.c.max_bin)
    query = sa.select(*cell, sa.func.count().label("features")).where(*conditions(listing, "density", "maximum"))
    return query.group_by(*cell).execution_options(about="features by density and maximum")


def feature_bins(connection: sa.Connection, listing: Listing) -> list[Bin]:
    """The cells of the plot that hold a feature."""
    return [Bin(*row) for row in connection.execute(bins_select(listing))]


def density_select(listing: Listing) -> sa.Select[Any]:
    """How many features lie in each bin of density: those that are listed, whatever their density."""
    query = sa.select(features.c.density_bin, sa.func.count().label("features")).where(*conditions(listing, "density"))
    return query.group_by(features.c.density_bin).execution_options(about="features by density")


def density_counts(connection: sa.Connection, listing: Listing) -> dict[int | None, int]:
    """How many features would be listed of each bin of density."""
    return {row.density_bin: row.features for row in connection.execute(density_select(listing))}


def total_select(listing: Listing) -> sa.Select[Any]:
    """How many features are listed on all pages."""
    query = sa.select(sa.func.count()).select_from(features).where(*conditions(listing))
    return query.execution_options(about="number of features")


def flags_select(listing: Listing) -> sa.Select[Any]:
    """How many of the listed features have each flag."""
    flags = feature_flags.c
    query = sa.select(flags.flag, sa.func.count().label("features")).where(flags.extraction_id == listing.extraction_id)
    wanted, number = listing.wanted, flags.neuron_index
    if not wanted.density.is_open:  # the index of bins begins with it: few features, each looked up
        query = query.join_from(features, feature_flags, features.c.neuron_index == number).where(*conditions(listing))
    elif wanted != FeatureFilter(flags=wanted.flags):
        query = query.where(number.in_(sa.select(features.c.neuron_index).where(*conditions(listing))))
    else:  # the table of flags says it alone
        query = query.where(*(_is_flagged(listing.extraction_id, flag, number, True) for flag in wanted.flags))
        query = query if listing.found is None else query.where(number.in_(listing.found.members))
    return query.group_by(flags.flag).execution_options(about="listed features by flag")


def flag_counts(connection: sa.Connection, listing: Listing) -> dict[str, int]:
    """How many features would be listed with each flag."""
    return {row.flag: row.features for row in connection.execute(flags_select(listing))}


def labels_select(listing: Listing) -> sa.Select[Any]:
    """How many of the listed features have each mark, and how many of those a label, whatever label is asked for."""
    stored = feature_labels.c
    query = sa.select(stored.mark, sa.func.count().label("features"), sa.func.count(stored.label).label("labelled"))
    query = query.where(stored.name == listing.name, stored.sae == listing.sae)
    if listing.wanted != FeatureFilter() or listing.found is not None:  # of the few labelled ones, which are listed
        same = features.c.neuron_index == stored.neuron_index
        alone = listing._replace(is_large=True)
        query = query.where(sa.exists().where(same, *conditions(alone, "label", walks=True)))
    return query.group_by(stored.mark).execution_options(about="listed features by mark")


def label_counts(connection: sa.Connection, listing: Listing) -> dict[str, int]:
    """How many features would be listed with a label, and with each mark."""
    rows = connection.execute(labels_select(listing)).all()
    marks = {str(mark): count for mark, count, _ in rows if mark is not None}
    return {LABELLED: sum(labelled for *_, labelled in rows), **marks}


def hits_select(found: Found, numbers: Sequence[int]) -> sa.Select[Any]:
    """How often a search found some features."""
    query = found.hits.where(found.number.in_(numbers))
    return query.execution_options(about="how often they were found")


SHOWN_TOKENS = 3


def top_tokens_select(extraction_id: int, numbers: Sequence[int]) -> sa.Select[Any]:
    """The tokens on which each of some features fires most often, in their order."""
    stored = feature_tokens.c
    query = sa.select(stored.neuron_index, stored.token).where(
        stored.extraction_id == extraction_id,
        stored.neuron_index.in_(numbers),
        stored.place == "firing",
        stored.rank < SHOWN_TOKENS,
    )
    return query.order_by(stored.neuron_index, stored.rank).execution_options(about="their top tokens")


def examples_select(extraction_id: int, numbers: Sequence[int]) -> sa.Select[Any]:
    """The strongest example of each of some features, and the strongest tokens of the next ones."""
    stored = feature_example_lists.c
    tokens = [stored.examples[rank, 2].as_string().label(f"token_{rank}") for rank in range(1, SHOWN_TOKENS + 1)]
    query = sa.select(stored.neuron_index, stored.examples[0].label("example"), *tokens)
    query = query.where(stored.extraction_id == extraction_id, stored.neuron_index.in_(numbers))
    return query.execution_options(about="their strongest examples")


def samples_select(corpus_id: int, numbers: Sequence[int]) -> sa.Select[Any]:
    """Some samples of a corpus with their tokens."""
    stored = samples.c
    query = sa.select(stored.sample_index, stored.document_id, stored.tokens)
    query = query.where(stored.corpus_id == corpus_id, stored.sample_index.in_(numbers))
    return query.execution_options(about="the samples of these examples")


def row_labels_select(listing: Listing, numbers: Sequence[int]) -> sa.Select[Any]:
    """What people have written about some features."""
    stored = feature_labels.c
    query = sa.select(stored.neuron_index, stored.label, stored.mark)
    query = query.where(stored.name == listing.name, stored.sae == listing.sae, stored.neuron_index.in_(numbers))
    return query.execution_options(about="their labels")


def row_flags_select(extraction_id: int, numbers: Sequence[int]) -> sa.Select[Any]:
    """The flags of some features."""
    stored = feature_flags.c
    query = sa.select(stored.neuron_index, stored.flag)
    query = query.where(stored.extraction_id == extraction_id, stored.neuron_index.in_(numbers))
    return query.order_by(stored.neuron_index, stored.flag).execution_options(about="their flags")
