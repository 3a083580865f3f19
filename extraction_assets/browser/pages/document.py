"""A document: its samples that are stored."""

from collections.abc import Collection
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.page import Page, PageRequest
from extraction_assets.browser.parameters import BadRequestError
from extraction_assets.browser.shown.context import Context, context, special_positions
from extraction_assets.database.queries.extractions import UnknownResultError, find_extraction
from extraction_assets.database.queries.one_feature import special_ids
from extraction_assets.database.queries.samples import DocumentPosition, document_query

SAMPLES_SHOWN = 50
BEGINNING = 60
"""Tokens of each sample that are shown."""


class DocumentSample(NamedTuple):
    """A sample of a document."""

    sample_index: int
    first_token: int
    length: int
    beginning: Context


class DocumentView(NamedTuple):
    """A document's page."""

    extraction: str
    sae: str
    document_id: str
    samples: tuple[DocumentSample, ...]
    after: DocumentPosition | None
    """Where the next part begins, if there is more."""


def document_view(request: PageRequest) -> DocumentView:
    """The stored samples that begin in a document. Raises UnknownResultError."""
    extraction = find_extraction(request.connection, request.path["extraction"], request.path["sae"])
    document_id, after = request.parameters.text("id"), _after(request)
    query = document_query(extraction.corpus_id, document_id or "", after, SAMPLES_SHOWN + 1)
    found = request.connection.execute(query).all()
    if not found:
        raise UnknownResultError(f"no stored sample begins in a document {document_id or ''!r}")
    special = special_ids(request.connection, extraction.corpus_id)
    samples = tuple(
        DocumentSample(row.sample_index, row.first_token, len(row.tokens), _beginning(row, special))
        for row in found[:SAMPLES_SHOWN]
    )
    more = DocumentPosition(samples[-1].first_token, samples[-1].sample_index) if len(found) > SAMPLES_SHOWN else None
    return DocumentView(extraction.name, extraction.sae, document_id or "", samples, more)


def _after(request: PageRequest) -> DocumentPosition | None:
    token, sample = request.parameters.integer("token"), request.parameters.integer("sample")
    if (token is None) != (sample is None):
        raise BadRequestError("token and sample belong together: they say after which sample to go on")
    return None if token is None or sample is None else DocumentPosition(token, sample)


def _beginning(row: sa.Row[Any], special_ids: Collection[int] | None) -> Context:
    special = special_positions(row.tokens, row.token_ids, special_ids)
    return context(row.tokens, (), (), width=BEGINNING, scale=1.0, special=special)


PAGE = Page("/{extraction}/{sae}/documents", "document.html", document_view)
