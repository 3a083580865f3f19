"""Two features side by side, or the same number in several SAEs, corpora or runs."""

import re
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.page import Page, PageRequest
from extraction_assets.browser.pages.feature import Reading, feature_view, reading_of
from extraction_assets.browser.parameters import BadRequestError
from extraction_assets.browser.shown.agreement import Agreement, Overlap, agreement, overlap
from extraction_assets.browser.shown.charts import Histogram, activation_histograms
from extraction_assets.browser.shown.feature_parts import FeatureView
from extraction_assets.database.queries.compare import places_query, same_index_query
from extraction_assets.database.queries.examples import find_feature
from extraction_assets.database.queries.extractions import find_extraction

TOP = 10
"""Strongest examples of each that are shown at first."""

_NAME = re.compile(r"(?P<extraction>[^/]+)/(?P<sae>[^/]+)/#?(?P<neuron>[0-9]{1,18})")


class Other(NamedTuple):
    """A result that has a feature of the same number."""

    name: str
    """``extraction/sae/12``, as ``a`` and ``b`` are given."""
    extraction: str
    sae: str
    hook: str


class Side(NamedTuple):
    """One of the two."""

    name: str
    feature: FeatureView
    histogram: Histogram
    """Over the bins of both."""


class CompareView(NamedTuple):
    """The page; with one feature alone it asks for the other."""

    a: Side | None
    b: Side | None
    overlap: Overlap | None
    overlap_missing: str | None
    """Why the examples cannot be compared."""
    agreement: Agreement | None
    jaccard: float | None
    """Of the tokens on which they fire, if each is among the other's strongest neighbours."""
    cosine: float | None
    """Of their decoder rows, if the second is among the nearest of the first."""
    same_index: tuple[Other, ...]
    """Where else there is a feature of the number of ``a``."""
    reading: Reading


class _Read(NamedTuple):
    extraction: sa.Row[Any]
    feature: FeatureView
    counts: list[int]
    """Its histogram."""


def compare_view(request: PageRequest) -> CompareView:
    """Two features, or one and those of the same number."""
    reading = reading_of(request.parameters, TOP)
    names = [request.parameters.text("a"), request.parameters.text("b")]
    read = [None if name is None else _read(request.connection, name, reading) for name in names]
    a, b = read
    shared: tuple[Overlap | None, str | None] = (None, None)
    if a and b:
        shared = _overlap(request.connection, a, b)
    sides = _sides(*read)
    return CompareView(
        a=sides[0],
        b=sides[1],
        overlap=shared[0],
        overlap_missing=shared[1],
        agreement=agreement(a.counts, b.counts) if a and b else None,
        jaccard=_jaccard(a.feature, b.feature) if a and b else None,
        cosine=_cosine(a.feature, b.feature) if a and b else None,
        same_index=_same_index(request.connection, a),
        reading=reading,
    )


def _read(connection: sa.Connection, name: str, reading: Reading) -> _Read:
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadRequestError(f"{name!r} is not a feature: write EXTRACTION/SAE/NUMBER, such as demo/layer1/12")
    extraction = find_extraction(connection, match["extraction"], match["sae"])
    reading = reading.fitted(extraction.max_length)
    feature = feature_view(connection, extraction, int(match["neuron"]), reading, draws=False)
    return _Read(extraction, feature, find_feature(connection, extraction.id, feature.neuron_index).histogram)


def _sides(*read: _Read | None) -> list[Side | None]:
    pictures = iter(activation_histograms(*(one.counts for one in read if one)))
    return [one and Side(_name(one.feature), one.feature, next(pictures)) for one in read]


def _name(feature: FeatureView) -> str:
    return f"{feature.extraction}/{feature.sae}/{feature.neuron_index}"


def _overlap(connection: sa.Connection, a: _Read, b: _Read) -> tuple[Overlap | None, str | None]:
    if a.extraction.corpus_id != b.extraction.corpus_id:
        return None, "they are of different corpora, so that no sample of one is a sample of the other"
    return overlap(_places(connection, a), _places(connection, b)), None


def _places(connection: sa.Connection, one: _Read) -> dict[int, list[int]]:
    """Where its strongest examples fire, by ``sample_index``."""
    query = places_query(one.extraction.id, one.feature.neuron_index)
    return {row.sample_index: row.positions for row in connection.execute(query)}


def _jaccard(a: FeatureView, b: FeatureView) -> float | None:
    if (a.extraction, a.sae) != (b.extraction, b.sae):
        return None
    pairs = ((a, b), (b, a))
    found = (
        neighbour.jaccard
        for one, other in pairs
        if one.relations
        for neighbour in one.relations.neighbours
        if neighbour.neuron_index == other.neuron_index
    )
    return next(found, None)


def _cosine(a: FeatureView, b: FeatureView) -> float | None:
    if a.extraction != b.extraction:
        return None
    found = (
        near.cosine
        for one, other in ((a, b), (b, a))
        if one.directions
        for near in one.directions.nearest
        if (near.sae, near.neuron_index) == (other.sae, other.neuron_index)
    )
    return next(found, None)


def _same_index(connection: sa.Connection, a: _Read | None) -> tuple[Other, ...]:
    if a is None:
        return ()
    index, itself = a.feature.neuron_index, (a.extraction.name, a.extraction.sae)
    found = connection.execute(same_index_query(index))
    return tuple(
        Other(f"{name}/{sae}/{index}", name, sae, hook) for name, sae, _, hook in found if (name, sae) != itself
    )


PAGE = Page("/compare", "compare.html", compare_view)
