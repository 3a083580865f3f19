"""Whether a published SAE is as sparse on a batch as its registry says."""

from collections.abc import Iterator

from extraction_assets.engine.findings import Finding
from extraction_assets.engine.preflight.sanity import SaeSanity
from extraction_assets.engine.saes.named import named_sae
from extraction_assets.engine.saes.published.described import mean_l0
from extraction_assets.settings import SaeSettings

_FAR = 3.0
"""Other text changes L0, but seldom by so much."""
_ENOUGH_TOKENS = 200


def examine_l0(name: str, sae: SaeSettings, found: SaeSanity) -> Iterator[Finding]:
    """A warning if the mean L0 of a batch is more than three times the registry's, or less than a third of it."""
    published = named_sae(sae.checkpoint)
    expected = None if published is None else mean_l0(published)
    if not expected or found.not_finite or found.tokens < _ENOUGH_TOKENS or not found.mean_l0:
        return
    if not 1 / _FAR <= found.mean_l0 / expected <= _FAR:
        text = (
            f"SAE {name!r} has {found.mean_l0:.3g} features firing on a token (mean L0), but SAELens's registry says "
            f"{expected:g}: a sign of another model, hook or normalization, or of text unlike that of its training"
        )
        yield Finding("warning", text)
