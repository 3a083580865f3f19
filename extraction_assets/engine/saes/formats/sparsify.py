"""The on-disk form of EleutherAI's sparsify: ``cfg.json`` and ``sae.safetensors`` (eai-sparsify 1.3).

relu(encoder(x - b_dec)), the k largest a token; a transcoder does not subtract b_dec, and may add W_skip x
(``SparseCoder.encode`` and ``forward``). Each folder carries the name of the module that it was trained on, such as
``layers.5`` or ``layers.5.mlp`` of the base model.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.saes.formats.shared.files import (
    CheckpointError,
    pick,
    read_config,
    read_safetensors,
    require_files,
    true_or_false,
    whole_number,
)
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import SAEWeights

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
FILES = FormatFiles((CONFIG, WEIGHTS))
LOADERS = ("sparsify",)  # which SAELens's registry does not name

_MODULE = re.compile(r"(\w+\.)*(layers|layer|h)\.\d+(\.\w+)*|(\w+\.)*(embed_tokens|embed_in|wte)")


def files(file: str | None) -> FormatFiles:
    return FILES if file is None else FormatFiles()


def recognises(place: SaePlace) -> bool:
    path = place.folder
    return (path / WEIGHTS).is_file() or ((path / CONFIG).is_file() and "k" in read_config(path, CONFIG))


def facts(place: SaePlace) -> dict[str, Any]:
    return {}


def record(place: SaePlace) -> SaeRecord:
    """The hook that the folder's name gives: the module's output, and for a transcoder its input."""
    path = place.folder
    config = read_config(path, CONFIG)
    transcode, name = true_or_false(path, CONFIG, config, "transcode", False), place.parts[-1]
    if not _MODULE.fullmatch(name):
        return SaeRecord(is_transcoder=transcode)
    if transcode:
        return SaeRecord(hook=f"{name}.input", hook_out=name, is_transcoder=True)
    return SaeRecord(hook=name)


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path = place.folder
    require_files(path, *FILES.required)
    config = read_config(path, CONFIG)
    if config.get("signed"):
        raise CheckpointError(
            f"SAE {path}: {CONFIG}: its encoder is signed: it keeps features with negative activations"
        )
    activation = config.get("activation", "topk")
    if activation != "topk":
        raise CheckpointError(f"SAE {path}: {CONFIG}: activation = {shown(activation)} is not supported (known: topk)")
    tensors = read_safetensors(path, WEIGHTS, device, place.part)
    skip = true_or_false(path, CONFIG, config, "skip_connection", False)
    names = ["encoder.weight", "encoder.bias", "W_dec", "b_dec", *(["W_skip"] if skip else [])]
    stored = pick(path, WEIGHTS, tensors, names, "sparsify")
    transcode = true_or_false(path, CONFIG, config, "transcode", False)
    weights = SAEWeights(
        architecture="topk",
        w_enc=stored["encoder.weight"].t(),
        b_enc=stored["encoder.bias"],
        w_dec=stored["W_dec"],
        b_dec=stored["b_dec"],
        apply_b_dec_to_input=not transcode,
        k=whole_number(path, config.get("k", 0), f"{CONFIG}: k"),
        is_transcoder=transcode,
        w_skip=stored["W_skip"].t() if skip else None,
        record=record(place),
    )
    _check_widths(path, config, weights.d_in, place.latent_dim(weights.latent_dim))
    return weights


def _check_widths(path: Path, config: dict[str, Any], width: int, latent_dim: int) -> None:
    d_in = whole_number(path, config.get("d_in", width), f"{CONFIG}: d_in")
    latents = whole_number(path, config.get("num_latents") or 0, f"{CONFIG}: num_latents")
    latents = latents or d_in * whole_number(path, config.get("expansion_factor", 32), f"{CONFIG}: expansion_factor")
    if (d_in, latents) != (width, latent_dim):
        raise CheckpointError(
            f"SAE {path}: {CONFIG} says d_in = {d_in} and {latents} latents, but encoder.weight of {WEIGHTS} is for "
            f"{width} and {latent_dim}: the two files do not belong together"
        )
