"""Fingerprints of what follows from checkpoints alone: of the model, of an SAE, and of what is made of both without a
corpus."""

from typing import Any

from extraction_assets.catalog import SAE_FEATURES, Asset, asset_row
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, checkpoint_files
from extraction_assets.engine.models.files.model_folder import has_own_code
from extraction_assets.engine.saes.located_checkpoint import sae_facts, sae_files
from extraction_assets.engine.saes.resolved import ResolvedExtraction
from extraction_assets.planning.asset_fields import values_in_fingerprint
from extraction_assets.planning.tokenization import tokenizer_fingerprint
from extraction_assets.settings import ExtractionSettings, ResolvedSae
from extraction_assets.stores.fingerprints import files_fingerprint, fingerprint, fingerprint_if_more


def model_fingerprint(checkpoint: LocalCheckpoint) -> str:
    """Of what a language model computes: its configuration, its weights, and its code where that is trusted."""
    whole = files_fingerprint(checkpoint_files(checkpoint), on_trust=True)
    own_code = checkpoint.trust_remote_code and has_own_code(checkpoint.folder)
    # The buffers of such a model were once left unfilled.
    return fingerprint_if_more("model", whole, **({"computed_buffers": "filled"} if own_code else {}))


def sae_fingerprint(settings: ExtractionSettings, sae: ResolvedSae) -> str:
    """Of what an SAE computes: its files, and the settings that change it where they are set."""
    options = values_in_fingerprint(asset_row(SAE_FEATURES), settings, sae, part="sae")
    return _sae_files_fingerprint(sae, **options)


def weights_fingerprint(row: Asset, settings: ExtractionSettings, extraction: ResolvedExtraction, sae: str) -> str:
    """Of an asset of an SAE that is made from the checkpoints alone. No corpus has to be there."""
    parts = {part: _part(part, settings, extraction, sae) for part in row.fingerprint_parts}
    return fingerprint(row.name, **parts, **values_in_fingerprint(row, settings, extraction.saes[sae]))


def _part(part: str, settings: ExtractionSettings, extraction: ResolvedExtraction, sae: str) -> Any:
    """What the catalog's name of a part of such a fingerprint stands for."""
    match part:
        case "model":
            return model_fingerprint(extraction.checkpoint)
        case "sae":
            return sae_fingerprint(settings, extraction.saes[sae])
        case "written":
            return extraction.saes[sae].written_hook
        case "other_saes":  # options leave the direction of a decoder row as it is
            return {name: _sae_files_fingerprint(one) for name, one in extraction.saes.items() if name != sae}
        case "display":
            return tokenizer_fingerprint(settings, extraction.checkpoint)
    raise ValueError(f"the catalog names a part {part!r} of a fingerprint of weights, which is not known here")


def _sae_files_fingerprint(sae: ResolvedSae, **options: Any) -> str:
    files = files_fingerprint(sae_files(sae.checkpoint), on_trust=True)
    return fingerprint_if_more("sae", files, **{**sae_facts(sae.checkpoint), **options})
