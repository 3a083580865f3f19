"""Where people read more about a published SAE: its names, its page on the hub, its features on Neuronpedia."""

import dagster as dg

from extraction_assets.engine.saes.formats import is_one_file
from extraction_assets.engine.saes.named import named_sae
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
