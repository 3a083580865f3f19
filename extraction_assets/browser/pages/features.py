"""The features of an SAE: a list to read, sort, filter and search, with a plot that is a filter and facets that count
what they would leave."""

from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.feature_query import ListQuery, key_text, list_query
from extraction_assets.browser.links import Here
from extraction_assets.browser.list_facets import Facet, density_facets, flag_facets, label_facets
from extraction_assets.browser.list_search import Search, Searched, search
from extraction_assets.browser.listed_features import ListedFeature, listed_features
from extraction_assets.browser.page import Page, PageRequest
from extraction_assets.browser.parameters import BadRequestError
from extraction_assets.browser.scatter import Scatter, scatter
from extraction_assets.browser.shown.feature_reads import missing_relations
from extraction_assets.database.queries import feature_counts as counts
from extraction_assets.database.queries.extractions import find_extraction
from extraction_assets.database.queries.feature_filter import Listing
from extraction_assets.database.queries.feature_list import Key, ListedRow, page_of_features
from extraction_assets.database.queries.one_feature import first_firing_query
from extraction_assets.engine.statistics.rows_and_sentences import unknown_sizes

PLACE = ("after", "before")
"""Parameters that say where in a list a page is: another filter or order begins at its start."""


LARGE = 40
"""A list is large if it has more than one in so many of the features."""


class Column(NamedTuple):
    """A column of the list with a link that sorts by it."""

    sort: str
    title: str
    address: str
    order: str | None
    """How the list is sorted by it: ``ascending``, ``descending``, or not at all."""


class FeaturesView(NamedTuple):
    """What the page shows."""

    extraction: str
    sae: str
    model: str
    hook: str
    latent_dim: int
    sample_count: int
    token_count: int
    total: int
    """Features on all pages of this list."""
    relations_missing: str | None
    """Why there are no top tokens and flags of this result."""
    search: Search | None
    query: ListQuery
    columns: list[Column]
    features: list[ListedFeature]
    previous: str | None
    next: str | None
    clear: str | None
    """The list without its filters."""
    scatter: Scatter | None
    density: list[Facet]
    flags: list[Facet]
    labels: list[Facet]
    leads_to: str | None
    """The feature's own page, if its number was searched for."""


def features_view(request: PageRequest) -> FeaturesView:
    """The list of an SAE's features."""
    connection = request.connection
    extraction = find_extraction(connection, request.path["extraction"], request.path["sae"])
    query = list_query(request.parameters)
    relations, missing = missing_relations(connection, extraction)
    _refuse_unknown(connection, extraction, query, missing)
    found = search(connection, extraction, query, request.here, counted=relations is not None)
    listing = Listing(extraction.id, extraction.name, extraction.sae, query.wanted, found and found.found)
    cells = counts.feature_cells(connection, listing)
    total = counts.total(cells)
    listing = listing._replace(is_large=total * LARGE > extraction.latent_dim)
    places = {"after": query.after, "before": query.before}
    page = page_of_features(connection, listing, query.sort, descending=query.descending, limit=query.limit, **places)
    rows = listed_features(
        connection,
        extraction,
        listing,
        page.rows,
        top_tokens=relations is not None,
        sorted_by_hits=query.sort == "found",
    )
    here = request.here
    return FeaturesView(
        extraction=extraction.name,
        sae=extraction.sae,
        model=extraction.model,
        hook=extraction.hook,
        latent_dim=extraction.latent_dim,
        sample_count=extraction.sample_count,
        token_count=extraction.token_count,
        total=total,
        relations_missing=missing or None,
        search=found and found.search.counting(total),
        query=query,
        columns=_columns(query, here),
        features=rows,
        previous=_place(here, "before", page.rows[:1]) if page.before else None,
        next=_place(here, "after", page.rows[-1:]) if page.after else None,
        clear=_clear(here),
        scatter=scatter(cells, query.wanted.density, query.wanted.maximum),
        density=density_facets(counts.density_counts(cells), query.wanted.density, here),
        flags=flag_facets(connection, listing, here, computed=relations is not None),
        labels=label_facets(connection, listing, here),
        leads_to=_leads_to(request, extraction, found),
    )


def _refuse_unknown(connection: sa.Connection, extraction: sa.Row[Any], query: ListQuery, missing: str) -> None:
    """Raises BadRequestError for a list by what this result does not have: nothing would be left, and not say why.
    ``missing`` is why there are no relations, empty if there are."""
    if missing and (query.wanted.flags or query.sort == "flags"):
        how = "filtered" if query.wanted.flags else "sorted"
        raise BadRequestError(f"the list cannot be {how} by flags, which are {missing}")
    if not query.wanted.std.is_open:
        unknown = unknown_sizes(connection.execute(first_firing_query(extraction.id)), ["std_activation"])
        if unknown:
            raise BadRequestError(f"the list cannot be filtered by standard deviation: {unknown}")


def _leads_to(request: PageRequest, extraction: sa.Row[Any], found: Searched | None) -> str | None:
    number = None if found is None else found.search.number
    if number is None or number >= extraction.latent_dim:
        return None
    return request.links.feature(extraction.name, extraction.sae, number)


_TITLES = {
    "number": "feature",
    "found": "found",
    "density": "density",
    "maximum": "max",
    "mean": "mean",
    "std": "std",
}


def _columns(query: ListQuery, here: Here) -> list[Column]:
    """Columns by which the list can be sorted; a click on the one it is sorted by turns it round."""
    return [_column(name, title, query, here) for name, title in _TITLES.items() if name != "found" or query.typed]


def _column(name: str, title: str, query: ListQuery, here: Here) -> Column:
    sorted_by = query.sort == name
    first = "asc" if name == "number" else "desc"
    other = {"asc": "desc", "desc": "asc"}[first]
    order = "desc" if query.descending else "asc"
    following = other if sorted_by and order == first else first
    changed: dict[str, Any] = {"sort": name, "order": None if following == first else following}
    said = {"asc": "ascending", "desc": "descending"}[order]
    return Column(name, title, here.changed(**changed, **dict.fromkeys(PLACE)), said if sorted_by else None)


def _place(here: Here, name: str, rows: list[ListedRow]) -> str | None:
    """The address of the page that goes on at a row."""
    for row in rows:
        key = key_text(Key(row.sorted_by, row.neuron_index))
        return here.changed(**{**dict.fromkeys(PLACE), name: key})
    return None


def _clear(here: Here) -> str | None:
    """The list with its order alone, if it has filters."""
    kept = ("sort", "order", "rows")
    filters = {name for name, _ in here.parameters if name not in (*kept, *PLACE)}
    sort = {"sort": None} if ("sort", "found") in here.parameters else {}
    return here.changed(**dict.fromkeys(filters), **dict.fromkeys(PLACE), **sort) if filters else None


PAGE = Page("/{extraction}/{sae}/", "features.html", features_view)
