"""Facets of a feature list: what it could be narrowed down to, with how many features that would leave."""

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.links import Here
from extraction_assets.database.bins import DENSITY_EDGES, bin_of
from extraction_assets.database.queries.feature_counts import flag_counts, label_counts
from extraction_assets.database.queries.feature_filter import FLAGS, LABELLED, Listing, Range
from extraction_assets.database.queries.labels import MARKS

PLACE = {"after": None, "before": None}

DENSITIES: tuple[tuple[str, float | None, float | None], ...] = (
    ("below 0.01 %", None, 0.0001),
    ("0.01 to 0.1 %", 0.0001, 0.001),
    ("0.1 to 1 %", 0.001, 0.01),
    ("1 to 10 %", 0.01, 0.1),
    ("above 10 %", 0.1, None),
)
"""Ranges of density; their bounds are edges of bins."""

_FLAG_TITLES = {"one_token": "one token", "first_position": "first position"}


class Facet(NamedTuple):
    """One way to narrow the list down, or, where it is so already, to widen it again."""

    name: str
    features: int | None
    """Features that it would leave; None where that is not computed."""
    address: str | None
    active: bool


def density_facets(counts: Mapping[int | None, int], density: Range, here: Here) -> list[Facet]:
    """Ranges of density. ``counts`` are the features that would be listed of each bin."""
    found = []
    for name, low, high in DENSITIES:
        first = 0 if low is None else bin_of(low, DENSITY_EDGES)
        stop = len(DENSITY_EDGES) + 1 if high is None else bin_of(high, DENSITY_EDGES)
        assert first is not None, "bounds are numbers"
        assert stop is not None, "bounds are numbers"
        count = sum(counts.get(number, 0) for number in range(first, stop))
        active = density == Range(low, high)
        bounds = {} if active else {"min_density": low, "max_density": high}
        address = here.changed(**{"min_density": None, "max_density": None, **PLACE, **bounds})
        found.append(Facet(name, count, address, active))
    return found


def flag_facets(connection: sa.Connection, listing: Listing, here: Here, *, computed: bool) -> list[Facet]:
    """Flags of features. Several may be chosen: features with all of them are listed."""
    counts = flag_counts(connection, listing) if computed else {}
    found = []
    for flag in FLAGS:
        active = flag in listing.wanted.flags
        flags = [one for one in listing.wanted.flags if one != flag] if active else [*listing.wanted.flags, flag]
        address = here.repeated("flag", flags, "after", "before")
        count = counts.get(flag, 0) if computed else None
        found.append(Facet(_FLAG_TITLES.get(flag, flag), count, address if computed or active else None, active))
    return found


def label_facets(connection: sa.Connection, listing: Listing, here: Here) -> list[Facet]:
    """What people have labelled and marked."""
    counts = label_counts(connection, listing)
    found = []
    for name in (LABELLED, *MARKS):
        active = listing.wanted.label == name
        address = here.changed(label=None if active else name, **PLACE)
        found.append(Facet(name, counts.get(name, 0), address, active))
    return found
