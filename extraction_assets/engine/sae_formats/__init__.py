"""Readers of SAE checkpoints: one module a format, found by looking at the files."""

from pathlib import Path

from extraction_assets.engine.sae_formats import saelens
from extraction_assets.engine.sae_formats.weights import CheckpointError, SAEWeights

__all__ = ["CheckpointError", "SAEWeights", "read_checkpoint"]

FORMATS = {"SAELens": saelens}


def read_checkpoint(path: Path) -> SAEWeights:
    """Weights and architecture of the checkpoint in folder ``path``, on the CPU in float32.

    Raises CheckpointError where the folder is missing, is of no known format, or holds unusable weights.
    """
    if not path.is_dir():
        raise CheckpointError(f"no SAE checkpoint at {path}: the folder does not exist")
    for reader in FORMATS.values():
        if reader.recognises(path):
            weights: SAEWeights = reader.read(path)
            weights.validate(path)
            return weights
    known = "; ".join(f"{name}: {reader.FILES}" for name, reader in FORMATS.items())
    raise CheckpointError(f"{path} is not an SAE checkpoint of a known format ({known})")
