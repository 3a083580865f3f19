"""How many features a list has: on all its pages, in each cell of the plot, and with each facet.

The index ``ix_features_bins`` answers alone, whatever is filtered; for what a search found or a flag has, its features
are looked up in ``ix_features_numbers``, which has the same columns.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.database.queries.feature_filter import (
    LABELLED,
    FeatureFilter,
    Listing,
    conditions,
    in_density,
    in_maximum,
    is_flagged,
    names_features,
    no_index,
)
from extraction_assets.database.tables import feature_flags, feature_labels, features


class Cell(NamedTuple):
    """How many features lie in one cell of the plot; its bins are None for those that never fire."""

    density_bin: int | None
    max_bin: int | None
    features: int
    """Those that would be listed whatever their density and maximum."""
    in_maximum: int
    """Those of them whose maximum is asked for."""
    listed: int
    """Those of them whose density is asked for, too."""


def cells_select(listing: Listing) -> sa.Select[Any]:
    """The fields of ``Cell``: what the plot, the facets of density and the number of features are counted from.

    The index of bins groups all features; where a few are named, each is looked up instead, which SQLite does only if
    no index seems to be of use for the groups.
    """
    cell: list[sa.ColumnElement[int]] = [features.c.density_bin, features.c.max_bin]
    groups = [no_index(column) for column in cell] if names_features(listing) else cell
    maximum = in_maximum(listing.wanted.maximum, counted=True)
    density = in_density(listing.wanted.density, counted=True)
    query = sa.select(
        *(group.label(column.key) for group, column in zip(groups, cell, strict=True)),
        sa.func.count().label("features"),
        _count_where(maximum).label("in_maximum"),
        _count_where([*density, *maximum]).label("listed"),
    ).where(*conditions(listing, "density", "maximum"))
    return query.group_by(*groups).execution_options(about="features by density and maximum")


def _count_where(conditions: list[sa.ColumnElement[bool]]) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((sa.and_(*conditions), 1))) if conditions else sa.func.count()


def feature_cells(connection: sa.Connection, listing: Listing) -> list[Cell]:
    """The cells of the plot that hold a feature."""
    return [Cell(*row) for row in connection.execute(cells_select(listing)).all()]


def density_counts(cells: list[Cell]) -> dict[int | None, int]:
    """How many features would be listed of each bin of density, whatever their density."""
    counts: dict[int | None, int] = {}
    for cell in cells:
        counts[cell.density_bin] = counts.get(cell.density_bin, 0) + cell.in_maximum
    return counts


def total(cells: list[Cell]) -> int:
    """How many features are listed on all pages."""
    return sum(cell.listed for cell in cells)


def flags_select(listing: Listing) -> sa.Select[Any]:
    """How many of the listed features have each flag."""
    flags = feature_flags.c
    query = sa.select(flags.flag, sa.func.count().label("features")).where(flags.extraction_id == listing.extraction_id)
    wanted, number = listing.wanted, flags.neuron_index
    if wanted == FeatureFilter(flags=wanted.flags):  # the table of flags says it alone
        query = query.where(*(is_flagged(listing.extraction_id, flag, number, alone=True) for flag in wanted.flags))
        query = query if listing.found is None else query.where(number.in_(listing.found.members))
    elif listing.is_large:  # each flagged feature is looked up
        query = query.join_from(feature_flags, features, features.c.neuron_index == no_index(number))
        query = query.where(*conditions(listing))
    else:
        query = query.where(number.in_(sa.select(features.c.neuron_index).where(*conditions(listing))))
    return query.group_by(flags.flag).execution_options(about="listed features by flag")


def flag_counts(connection: sa.Connection, listing: Listing) -> dict[str, int]:
    """How many features would be listed with each flag."""
    return {row.flag: row.features for row in connection.execute(flags_select(listing))}


def labels_select(listing: Listing) -> sa.Select[Any]:
    """How many of the labelled features that are listed have each mark (NULL: none), whatever label is asked for."""
    stored = feature_labels.c
    query = sa.select(stored.mark, sa.func.count().label("features"))
    query = query.where(stored.name == listing.name, stored.sae == listing.sae)
    if listing.wanted != FeatureFilter() or listing.found is not None:  # of the few labelled ones, which are listed
        same = features.c.neuron_index == stored.neuron_index
        alone = listing._replace(is_large=True)
        query = query.where(sa.exists().where(same, *conditions(alone, "label", walks=True)))
    return query.group_by(stored.mark).execution_options(about="listed features by mark")


def label_counts(connection: sa.Connection, listing: Listing) -> dict[str, int]:
    """How many features would be listed as labelled, and with each mark."""
    rows = connection.execute(labels_select(listing)).all()
    marks = {str(mark): count for mark, count in rows if mark is not None}
    return {LABELLED: sum(count for _, count in rows), **marks}
