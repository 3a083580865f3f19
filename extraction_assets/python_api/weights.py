"""The weights of the SAE of a result."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from extraction_assets.planning.plan import ExtractionPlan
from extraction_assets.python_api.errors import NotComputedError
from extraction_assets.settings import ExtractionSettings, ResolvedSae
from extraction_assets.stores.chunk_store import ChunkStore

if TYPE_CHECKING:
    from extraction_assets.engine.saes.sae import SAE


def refuse_replaced(name: str, extraction: sa.Row[Any], store: ChunkStore) -> None:
    """Raises NotComputedError if model or SAE are no longer those that a result was made from; warns if that is not
    known. ``extraction`` is its row of ``extractions``."""
    try:
        plan = ExtractionPlan(ExtractionSettings.model_validate(extraction.settings), store)
        now = plan.merge_fingerprint(extraction.sae)
    except (ValueError, LookupError, OSError) as error:  # no corpus, no model, settings of another version
        warnings.warn(f"the SAE of {name} may be another one than it was merged from: {error}", stacklevel=4)
        return
    if now != extraction.fingerprint:
        raise NotComputedError(
            f"the checkpoints of {name} are other ones than those that it was merged from: put these back, or run "
            "the extraction again"
        )


def load_sae_of(name: str, settings: Mapping[str, Any] | None, latent_dim: int) -> "SAE":
    """The SAE ``name`` (``extraction/sae``) on the CPU, by what the result's settings say of it.

    Raises NotComputedError if its checkpoint is not there or is another one now; CheckpointError if it is damaged.
    """
    from extraction_assets.engine.saes.located_checkpoint import read_sae
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
