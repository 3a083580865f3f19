"""The search of a feature list: a token, a text in examples, a label or ``#number``, and where it was found."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.feature_query import ListQuery
from extraction_assets.browser.links import Here
from extraction_assets.catalog import FEATURE_RELATIONS
from extraction_assets.database.queries import search as queries
from extraction_assets.database.queries.feature_filter import FeatureFilter, Found
from extraction_assets.database.queries.search import FOUND_BY, FoundBy
from extraction_assets.database.queries.texts import text_is_indexed

_TITLES: dict[FoundBy, str] = {"token": "as a token", "text": "in the text of examples", "label": "in labels and notes"}


class FoundPlace(NamedTuple):
    """One place to look."""

    by: FoundBy
    title: str
    features: int | None
    """Features found there; None where it was not looked."""
    missing: str | None
    """Why it cannot be looked at."""
    address: str
    active: bool


class Search(NamedTuple):
    """What was searched for, and where it was found."""

    typed: str
    number: int | None
    """Of ``#12``."""
    places: list[FoundPlace]
    scope: str | None
    """What the hits of this list count."""

    def counting(self, total: int) -> "Search":
        """With the features of the whole list as those of the chosen place, where nothing else narrows it down."""
        places = [
            one._replace(features=total) if one.active and one.features is None and one.missing is None else one
            for one in self.places
        ]
        return self._replace(places=places)


class Searched(NamedTuple):
    """A search with what it found, which narrows the list down."""

    search: Search
    found: Found


class _Place(NamedTuple):
    found: Found | None
    missing: str | None
    scope: str


def search(
    connection: sa.Connection, extraction: sa.Row[Any], query: ListQuery, here: Here, *, counted: bool
) -> Searched | None:
    """What a list is searched for; None if it is not. ``counted`` if the top tokens are computed."""
    if query.typed is None:
        return None
    wanted = queries.parse_search(query.typed)
    if wanted.number is not None:
        return Searched(
            Search(query.typed, wanted.number, [], None), queries.number_found(extraction.id, wanted.number)
        )
    places = {by: _place(extraction, wanted, by, counted=counted) for by in FOUND_BY}
    chosen = query.found_by or _first(connection, places)
    if chosen == "text":  # the one search that takes long: it is made where it is asked for
        places["text"] = _text_place(connection, extraction, wanted, counted=counted)
    is_total = query.wanted == FeatureFilter()  # of the chosen place: the list counts it
    counts = {by: _count(connection, by, places[by]) for by in FOUND_BY if not (by == chosen and is_total)}
    kept = {"after": None, "before": None}
    shown = [
        FoundPlace(by, _TITLES[by], counts.get(by), places[by].missing, here.changed(by=by, **kept), by == chosen)
        for by in FOUND_BY
    ]
    found = places[chosen].found or queries.number_found(extraction.id, -1)
    return Searched(Search(query.typed, None, shown, places[chosen].scope), found)


def _first(connection: sa.Connection, places: Mapping[FoundBy, _Place]) -> FoundBy:
    """The first place that has anything; texts are looked at last."""
    for by, place in places.items():
        if place.found is not None and connection.scalar(queries.any_select(place.found, f"any {_TITLES[by]}")):
            return by
    return "text"


def _place(extraction: sa.Row[Any], wanted: queries.SearchTerm, by: FoundBy, *, counted: bool) -> _Place:
    if by == "token":
        what = (
            "firings on the token, of the features that have it among their top tokens"
            if counted
            else "examples with it as the strongest token, of the strongest ones of each feature"
        )
        return _Place(queries.token_found(extraction.id, wanted, counted=counted), None, what)
    if by == "label":
        return _Place(queries.label_found(extraction.name, extraction.sae, wanted), None, "")
    return _Place(None, None, "")


def _text_place(
    connection: sa.Connection, extraction: sa.Row[Any], wanted: queries.SearchTerm, *, counted: bool
) -> _Place:
    found, missing, is_cut = queries.text_found(connection, extraction, wanted)
    scope = f"of the first {queries.MOST_SAMPLES} samples with the text"
    if is_cut:
        scope = f"{scope}, and only the {queries.MOST_FEATURES:,} features that are in most of them are listed"
    if not text_is_indexed(connection, extraction.id):
        asset = f"{extraction.name}/{extraction.sae}/{FEATURE_RELATIONS}"
        why = "this database has no complete index of texts" if counted else f"the index of texts is made with {asset}"
        scope = f"{scope}; all samples were read, which takes long: {why}"
    return _Place(found, missing, scope)


def _count(connection: sa.Connection, by: FoundBy, place: _Place) -> int | None:
    if place.found is None:
        return None
    return int(connection.scalar(queries.count_select(place.found, f"features found {_TITLES[by]}")) or 0)
