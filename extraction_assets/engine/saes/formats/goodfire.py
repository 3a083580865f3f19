"""The on-disk form of Goodfire and of qresearch: one ``MODEL-SAE-lN.pt`` (or ``.pth``) with two linear layers.

relu(encoder(x)), decoder(features); the layers are called ``encoder_linear`` and ``decoder_linear`` (Goodfire) or
``encoder`` and ``decoder`` (qresearch). Model and layer stand in the file's name alone, as in
``Llama-3.1-8B-Instruct-SAE-l19.pth``: what the layer gives to the residual stream.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_state_dict
from extraction_assets.engine.saes.formats.shared.files import pick, sae_file
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import SAEWeights

if TYPE_CHECKING:
    import torch

WEIGHTS = "MODEL-SAE-lN.pt"
LOADERS = ("goodfire", "deepseek_r1")

_FILE = re.compile(r"(?P<model>.+)-SAE-l(?P<layer>\d+)\.pth?")


def files(file: str | None) -> FormatFiles:
    return FormatFiles((file,)) if file is not None and _FILE.fullmatch(file) else FormatFiles()


def recognises(place: SaePlace) -> bool:
    return True  # the file's name is exact


def facts(place: SaePlace) -> dict[str, Any]:
    return {}


def record(place: SaePlace) -> SaeRecord:
    """Model and layer by the file's name."""
    named = _FILE.fullmatch(place.file or "")
    if named is None:
        return SaeRecord()
    return SaeRecord(
        hook=f"blocks.{named['layer']}.hook_resid_post",
        model_name=named["model"] if place.published is None else place.published.model,
        dataset_path="lmsys/lmsys-chat-1m",
    )


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path, file = place.folder, place.file or WEIGHTS
    tensors = read_state_dict(sae_file(path, file), device)
    suffix = "_linear" if "encoder_linear.weight" in tensors else ""
    encoder, decoder = f"encoder{suffix}", f"decoder{suffix}"
    names = [f"{layer}.{part}" for layer in (encoder, decoder) for part in ("weight", "bias")]
    stored = pick(path, file, tensors, names, "Goodfire")
    return SAEWeights(
        architecture="standard",
        w_enc=stored[f"{encoder}.weight"].t(),
        b_enc=stored[f"{encoder}.bias"],
        w_dec=stored[f"{decoder}.weight"].t(),
        b_dec=stored[f"{decoder}.bias"],
        record=record(place),
    )
