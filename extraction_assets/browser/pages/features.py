"""The features of an SAE: a list to read, sort, filter and search."""

from typing import NamedTuple

from extraction_assets.browser.page import Page, PageRequest
from extraction_assets.database.queries import find_extraction


class FeaturesView(NamedTuple):
    """What the page shows."""

    extraction: str
    sae: str
    hook: str
    model: str
    latent_dim: int
    sample_count: int
    token_count: int


def features_view(request: PageRequest) -> FeaturesView:
    """The list of an SAE's features."""
    found = find_extraction(request.connection, request.path["extraction"], request.path["sae"])
    numbers = (found.latent_dim, found.sample_count, found.token_count)
    return FeaturesView(found.name, found.sae, found.hook, found.model, *numbers)


PAGE = Page("/{extraction}/{sae}/", "features.html", features_view)
