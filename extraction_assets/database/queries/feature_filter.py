"""Which features a list has: a filter, what a search found, and the conditions that they are on rows of ``features``.

Ranges of density and maximum are conditions on the bins of ``bins.py`` where a bound is an edge of theirs.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.bins import DENSITY_EDGES, MAX_EDGES, bin_of
from extraction_assets.database.tables import feature_flags, feature_labels, features

Flag = Literal["dead", "dense", "duplicate", "first_position", "one_token"]

FLAGS: tuple[Flag, ...] = ("dead", "dense", "one_token", "first_position", "duplicate")
LABELLED = "labelled"

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


def names_features(listing: Listing) -> bool:
    """Whether a listing is of features that a search found, or that have a flag or a label."""
    return bool(listing.found or listing.wanted.flags or listing.wanted.label)


def conditions(listing: Listing, *without: str, walks: bool = False) -> list[sa.ColumnElement[bool]]:
    """What the rows of ``features`` fulfil that a listing shows, leaving out the filters named in ``without``.

    ``walks``: the query goes through the features in its order until a page is full. If the list is large, each row is
    then looked at by itself, and no set of features is made first.
    """
    wanted, column, alone = listing.wanted, features.c, walks and listing.is_large
    found: list[sa.ColumnElement[bool]] = [column.extraction_id == listing.extraction_id]
    if "density" not in without:
        found += in_density(wanted.density, alone=alone)
    if "maximum" not in without:
        found += in_maximum(wanted.maximum, alone=alone)
    found += [*_in_range(wanted.mean, column.mean_activation), *_in_range(wanted.std, column.std_activation)]
    found += [is_flagged(listing.extraction_id, flag, column.neuron_index, alone) for flag in wanted.flags]
    if wanted.label is not None and "label" not in without:
        found.append(column.neuron_index.in_(labelled_select(listing, wanted.label)))
    if listing.found is not None:
        member, holds = column.neuron_index.in_(listing.found.members), listing.found.holds
        found.append(holds if alone and holds is not None else member)
    return found


def no_index(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The column in a form for which no index is looked for: one that has every column that a query reads answers a
    filter faster than one that finds rows, each of which must then be read."""
    return column + sa.literal_column("0")  # no parameter: PostgreSQL and DuckDB compare what is grouped by


def in_density(limits: Range, *, alone: bool = False, counted: bool = False) -> list[sa.ColumnElement[bool]]:
    """The conditions of a density; ``alone``: the bins of a row are looked at, not looked for; ``counted``: in a column
    of the result, for which no index is looked for anyway."""
    of_row = (features.c.token_frequency, features.c.density_bin)
    return list(_in_bins(limits, *of_row, DENSITY_EDGES, alone or counted, _as_it_is if counted else no_index))


def in_maximum(limits: Range, *, alone: bool = False, counted: bool = False) -> list[sa.ColumnElement[bool]]:
    """The conditions of a maximum; see ``in_density``."""
    of_row = (features.c.max_activation, features.c.max_bin)
    return list(_in_bins(limits, *of_row, MAX_EDGES, alone or counted, _as_it_is if counted else no_index))


def _as_it_is(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return column


def _in_range(limits: Range, column: sa.ColumnElement[Any]) -> Iterable[sa.ColumnElement[bool]]:
    if limits.minimum is not None:
        yield no_index(column) >= limits.minimum
    if limits.maximum is not None:
        yield no_index(column) < limits.maximum


def _in_bins(
    limits: Range,
    column: sa.ColumnElement[Any],
    number: sa.ColumnElement[Any],
    edges: tuple[float, ...],
    alone: bool,
    written: Callable[[sa.ColumnElement[Any]], sa.ColumnElement[Any]],
) -> Iterable[sa.ColumnElement[bool]]:
    """A range as a range of bins, and the exact bounds where they are not edges of bins; ``alone``: as few conditions
    as say it, for which no index is looked for. ``written`` is how a column stands in a condition."""
    low, high = limits
    number = written(number) if alone else number
    if low is not None:
        edge = _edge(low, edges)
        if edge is not None or not alone:
            yield number >= bin_of(low if edge is None else edge, edges)
        if edge is None:
            yield written(column) >= low
    if high is not None:
        edge = _edge(high, edges)
        if edge is not None:
            yield number < bin_of(edge, edges)
        else:
            if not alone:
                yield number <= bin_of(high, edges)
            yield written(column) < high


def _edge(value: float, edges: tuple[float, ...]) -> float | None:
    """The edge that a bound is, but for the spelling of its last digit."""
    near = min(edges, key=lambda edge: abs(edge - value))
    return near if abs(near - value) <= SAME_EDGE * abs(near) else None


def is_flagged(extraction_id: int, flag: str, number: sa.ColumnElement[Any], alone: bool) -> sa.ColumnElement[bool]:
    """Whether a feature has a flag: one of a set that is made once, or ``alone`` looked up."""
    flags = feature_flags.alias("flagged").c
    of_flag = (flags.extraction_id == extraction_id, flags.flag == flag)
    return (
        sa.exists().where(*of_flag, flags.neuron_index == number)
        if alone
        else number.in_(sa.select(flags.neuron_index).where(*of_flag))
    )


def labelled_select(listing: Listing, label: str) -> sa.Select[Any]:
    """``neuron_index`` of the features with a label, a mark or a note, or with the mark that ``label`` is."""
    stored = feature_labels.c
    query = sa.select(stored.neuron_index).where(stored.name == listing.name, stored.sae == listing.sae)
    return query if label == LABELLED else query.where(stored.mark == label)
