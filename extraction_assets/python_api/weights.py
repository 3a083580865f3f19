"""The weights of the SAE of a result."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extraction_assets.python_api.errors import NotComputedError
from extraction_assets.settings import ResolvedSae

if TYPE_CHECKING:
    from extraction_assets.engine.saes.sae import SAE


def load_sae_of(name: str, settings: Mapping[str, Any] | None, latent_dim: int) -> "SAE":
    """The SAE ``name`` (``extraction/sae``) on the CPU, by what the result's settings say of it.

    Raises NotComputedError if its checkpoint is not there or is another one now; CheckpointError if it is damaged.
    """
    from extraction_assets.engine.saes.checkpoint import read_sae
    from extraction_assets.engine.saes.sae import SAE

    if settings is None:
        raise NotComputedError(f"the settings of {name} do not say where its SAE is")
    try:
        sae = SAE(read_sae(ResolvedSae.model_validate(dict(settings))))
    except FileNotFoundError as error:
        raise NotComputedError(f"the weights of {name} cannot be read: {error}") from error
    if sae.latent_dim != latent_dim:
        raise NotComputedError(
            f"the SAE of {name} has {sae.latent_dim:,} features now, and its result {latent_dim:,}: it was replaced"
        )
    return sae
