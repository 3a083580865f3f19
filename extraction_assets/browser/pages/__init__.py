"""The pages, one module each. The order matters where two paths match one address: the first wins."""

from extraction_assets.browser.page import Action, Download, Page
from extraction_assets.browser.pages import (
    compare,
    document,
    extractions,
    feature,
    features,
    labels,
    sample,
    try_text,
)

PAGES: tuple[Page, ...] = (
    extractions.PAGE,
    compare.PAGE,
    labels.PAGE,
    features.PAGE,
    feature.PAGE,
    sample.PAGE,
    document.PAGE,
    try_text.PAGE,
)
ACTIONS: tuple[Action, ...] = (labels.SAVE, labels.IMPORT)
DOWNLOADS: tuple[Download, ...] = (labels.FILE,)
