"""What a search finds, as the browser's list of features has it."""

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from extraction_assets.browser.feature_query import ListQuery
from extraction_assets.browser.links import Here
from extraction_assets.browser.list_search import Search, search
from extraction_assets.browser.listed_features import ListedFeature, listed_features
from extraction_assets.database.queries.feature_filter import FeatureFilter, Listing
from extraction_assets.database.queries.feature_list import page_of_features
from extraction_assets.database.queries.relations import find_relations
from extraction_assets.database.queries.search import FOUND_BY, FoundBy

if TYPE_CHECKING:
    import pandas as pd

_NAMES = {
    "density": "token_frequency",
    "maximum": "max_activation",
    "mean": "mean_activation",
    "std": "std_activation",
}
"""Columns of the list under the names of the database, which ``features()`` has too."""


def search_frame(
    connection: sa.Connection, extraction: sa.Row[Any], typed: str, by: FoundBy | None, limit: int
) -> "pd.DataFrame":
    """The features that a search finds, most hits first. Raises ValueError for a search that cannot be made."""
    import pandas as pd

    if not typed:
        raise ValueError("nothing to search for: give a token, a text, a label or '#12'")
    if "\0" in typed:
        raise ValueError("the text holds a NUL, which databases do not take: give it without")
    if limit < 0:
        raise ValueError(f"limit is {limit}: give a number of features")
    if by not in (None, *FOUND_BY):
        raise ValueError(f"by is {by!r}, not one of {', '.join(FOUND_BY)}")
    query = ListQuery(FeatureFilter(), "found", True, None, None, limit, typed, by)
    counted = find_relations(connection, extraction.id) is not None
    searched = search(connection, extraction, query, Here("/"), counted=counted)
    assert searched is not None, "a text was typed"
    place = next((one for one in searched.search.places if one.active), None)
    if place is not None and place.missing is not None:
        raise ValueError(place.missing)
    listing = Listing(extraction.id, extraction.name, extraction.sae, found=searched.found)
    page = page_of_features(connection, listing, "found", descending=True, limit=limit)
    rows = listed_features(connection, extraction, listing, page.rows, top_tokens=counted, sorted_by_hits=True)
    frame = pd.DataFrame([_row(one) for one in rows], columns=_columns()).set_index("neuron_index")
    frame.attrs |= _attributes(searched.search)
    return frame


def _columns() -> list[str]:
    fields = [_NAMES.get(name, name) for name in ListedFeature._fields if name != "example"]
    return [*fields, "sample_index", "text"]


def _row(one: ListedFeature) -> dict[str, Any]:
    values = {_NAMES.get(name, name): value for name, value in one._asdict().items() if name != "example"}
    example = one.example
    shown = (None, None) if example is None else (example.sample_index, "".join(example.tokens))
    return {**values, "sample_index": shown[0], "text": shown[1]}


def _attributes(found: Search) -> dict[str, Any]:
    place = next((one.by for one in found.places if one.active), "number")
    return {"found_by": place, "hits": found.scope or ""}
