"""Where people read more: of a result in the browser, of a published SAE on the hub and on Neuronpedia."""

import logging

import dagster as dg

from extraction_assets.browser.links import Links, NoLinks, OutsideLinks
from extraction_assets.engine.saes.formats import is_one_file
from extraction_assets.engine.saes.named import named_sae
from extraction_assets.host.locations import browser_url
from extraction_assets.settings import SaeSettings

HUB = "https://huggingface.co"
NEURONPEDIA = "https://www.neuronpedia.org"


def published_links(sae: SaeSettings) -> dict[str, dg.MetadataValue]:
    """Metadata of the assets of an SAE that SAELens's registry knows; empty for any other. Asks no hub."""
    published = named_sae(sae.checkpoint)
    if published is None:
        return {}
    kind = "blob" if is_one_file(published) else "tree"
    page = f"{HUB}/{published.repository}/{kind}/{sae.revision or 'main'}/{published.path}"
    found: dict[str, dg.MetadataValue] = {
        "published_sae": dg.MetadataValue.text(f"{published.release}/{published.sae_id}"),
        "hugging_face": dg.MetadataValue.url(page),
    }
    if published.neuronpedia is not None:
        found["neuronpedia"] = dg.MetadataValue.url(f"{NEURONPEDIA}/{published.neuronpedia}")
    return found


def links_to_browser(logger: logging.Logger) -> Links:
    """Links to the pages of the browser from outside; none, with a warning, if its configured address is not one."""
    try:
        return OutsideLinks(browser_url())
    except ValueError as error:
        logger.warning("without links to the browser: %s", error)
        return NoLinks()


def browser_metadata(links: Links, extraction: str, sae: str) -> dict[str, dg.MetadataValue]:
    """Metadata that links an asset of an SAE to its features in the browser; nothing where there are no links."""
    address = links.features(extraction, sae)
    return {} if address is None else {"browser": dg.MetadataValue.url(address)}
