"""How many features an SAE on this machine has, by the headers of its files, without their numbers."""

from __future__ import annotations

from collections.abc import Mapping

from extraction_assets.engine.file_boundary import CheckpointFile, read_header, read_npz_shapes
from extraction_assets.engine.saes.formats import SaePlace, checkpoint_files

_OF_FEATURES = ("b_enc", "b_E", "encoder.bias", "b_gate", "threshold")
"""Vectors of one number a feature, as formats call them."""


def stored_width(place: SaePlace) -> int | None:
    """F, as safetensors and npz files say it; None for others. Raises CheckpointError for a damaged file."""
    for path in checkpoint_files(place):
        file = CheckpointFile("checkpoint", path.parent, path.name)
        shapes: Mapping[str, tuple[int, ...]] = {}
        if path.suffix == ".safetensors":
            shapes = {name: stored.shape for name, stored in read_header(file).items()}
        elif path.suffix == ".npz":
            shapes = read_npz_shapes(file, _OF_FEATURES)
        for name in _OF_FEATURES:
            if len(shape := shapes.get(name, ())) == 1 and shape[0] > 1:
                return shape[0]
    return None
