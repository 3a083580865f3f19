"""The search of a feature list: a token, a text in examples, a label or ``#number``, and where it was found."""

from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.feature_query import ListQuery
from extraction_assets.browser.links import Here
from extraction_assets.database.queries import search as queries
from extraction_assets.database.queries.search import FOUND_BY, FoundBy
from extraction_assets.database.tables import features

_TITLES: dict[FoundBy, str] = {"token": "as a token", "text": "in the text of examples", "label": "in labels and notes"}


class FoundPlace(NamedTuple):
    """One place to look."""

    by: FoundBy
    title: str
    features: int | None
    """Features found there; None if it cannot be looked at, and ``missing`` says why."""
    missing: str | None
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


class Found(NamedTuple):
    """A search with the SELECT that narrows the list down."""

    search: Search
    select: sa.Select[Any]


class _Place(NamedTuple):
    select: sa.Select[Any] | None
    missing: str | None
    scope: str


def search(
    connection: sa.Connection, extraction: sa.Row[Any], query: ListQuery, here: Here, *, counted: bool
) -> Found | None:
    """What a list is searched for; None if it is not. ``counted`` if the top tokens are computed."""
    if query.typed is None:
        return None
    wanted = queries.parse_search(query.typed)
    if wanted.number is not None:
        return Found(Search(query.typed, wanted.number, [], None), _number_select(extraction.id, wanted.number))
    places = {by: _place(connection, extraction, wanted, by, counted=counted) for by in FOUND_BY}
    counts = {by: _count(connection, by, place) for by, place in places.items()}
    first: FoundBy = next((by for by in FOUND_BY if counts[by]), "token")
    chosen = query.found_by or first
    kept = {"after": None, "before": None}
    shown = [
        FoundPlace(by, _TITLES[by], counts[by], places[by].missing, here.changed(by=by, **kept), by == chosen)
        for by in FOUND_BY
    ]
    select = places[chosen].select
    return Found(
        Search(query.typed, None, shown, places[chosen].scope),
        _number_select(extraction.id, -1) if select is None else select,
    )


def _place(
    connection: sa.Connection, extraction: sa.Row[Any], wanted: queries.Wanted, by: FoundBy, *, counted: bool
) -> _Place:
    if by == "token":
        what = (
            "firings on the token, of the features that have it among their top tokens"
            if counted
            else "examples with it as the strongest token, of the strongest ones of each feature"
        )
        return _Place(queries.token_select(extraction.id, wanted, counted=counted), None, what)
    if by == "label":
        return _Place(queries.label_select(extraction.name, extraction.sae, wanted), None, "")
    select, missing = queries.text_select(connection, extraction, wanted)
    return _Place(select, missing, f"samples with the text, of the first {queries.MOST_SAMPLES} that hold it")


def _count(connection: sa.Connection, by: FoundBy, place: _Place) -> int | None:
    if place.select is None:
        return None
    return int(connection.scalar(queries.found_count_select(place.select, f"features found {_TITLES[by]}")) or 0)


def _number_select(extraction_id: int, number: int) -> sa.Select[Any]:
    """The feature of a number as what a search finds; nothing if there is none."""
    query = sa.select(features.c.neuron_index, sa.literal_column("1").label("hits"))
    return query.where(features.c.extraction_id == extraction_id, features.c.neuron_index == number)
