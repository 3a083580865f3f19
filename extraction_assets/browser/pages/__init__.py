"""The pages, one module each. The order matters where two paths match one address: the first wins."""

from extraction_assets.browser.page import Action, Download, Page
from extraction_assets.browser.pages import compare, document, extractions, feature, features, sample, try_text

PAGES: tuple[Page, ...] = (
    extractions.PAGE,
    compare.PAGE,
    features.PAGE,
    feature.PAGE,
    sample.PAGE,
    document.PAGE,
    try_text.PAGE,
)
ACTIONS: tuple[Action, ...] = ()
DOWNLOADS: tuple[Download, ...] = ()
