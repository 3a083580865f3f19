"""All merged results: what there is to look at."""

import datetime as dt
from typing import Any, NamedTuple

import sqlalchemy as sa

from extraction_assets.browser.page import Page, PageRequest
from extraction_assets.database.bins import DENSITY_EDGES, bin_of
from extraction_assets.database.tables import extractions, features

DENSE = 0.1
"""A feature that fires on this share of the tokens, or a larger one, counts as dense: an edge of the bins."""


class Extraction(NamedTuple):
    """One merged (extraction, SAE)."""

    name: str
    sae: str
    model: str
    hook: str
    latent_dim: int
    sample_count: int
    token_count: int
    top_k_examples: int
    dead_count: int
    """Features that never fire."""
    dense_count: int
    finished_at: dt.datetime
    fingerprint: str

    @property
    def dead_share(self) -> float:
        return self.dead_count / self.latent_dim

    @property
    def dense_share(self) -> float:
        return self.dense_count / self.latent_dim


class ExtractionsView(NamedTuple):
    """What the page shows."""

    extractions: list[Extraction]


def extractions_select() -> sa.Select[Any]:
    """One row for each merged (extraction, SAE), with its numbers of dead and of dense features."""
    of_extraction = features.c.extraction_id == extractions.c.id
    counted = [
        sa.select(sa.func.count()).select_from(features).where(of_extraction, condition).scalar_subquery().label(name)
        for name, condition in (
            ("dead_count", features.c.density_bin.is_(None)),
            ("dense_count", features.c.density_bin >= bin_of(DENSE, DENSITY_EDGES)),
        )
    ]
    names = [name for name in Extraction._fields if not name.endswith(("dead_count", "dense_count"))]
    return (
        sa.select(*(extractions.c[name] for name in names), *counted)
        .order_by(extractions.c.name, extractions.c.sae)
        .execution_options(about="merged results")
    )


def extractions_view(request: PageRequest) -> ExtractionsView:
    """The list of all merged results."""
    rows = request.connection.execute(extractions_select())
    return ExtractionsView([Extraction(**row._mapping) for row in rows])


PAGE = Page("/", "extractions.html", extractions_view)
