"""Gemma Scope's on-disk form: one ``params.npz`` with W_enc, b_enc, W_dec, b_dec and threshold (JumpReLU).

The file does not name model and hook; its path does, as in ``google/gemma-scope-2b-pt-res`` and there in
``layer_12/width_16k/average_l0_82`` (Lieberum et al. 2024; names of hooks as in sae-lens's loader ``gemma_2``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_npz
from extraction_assets.engine.saes.formats.files import per_feature, pick, sae_file
from extraction_assets.engine.saes.formats.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.recorded import SaeRecord
from extraction_assets.engine.saes.formats.weights import SAEWeights

if TYPE_CHECKING:
    import torch

WEIGHTS = "params.npz"
FILES = FormatFiles((WEIGHTS,))
LOADERS = ("gemma_2",)

_REPOSITORY = re.compile(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att)\b")
_LAYER = re.compile(r"layer_(\d+)")
_HOOKS = {"res": "blocks.{}.hook_resid_post", "mlp": "blocks.{}.hook_mlp_out", "att": "blocks.{}.attn.hook_z"}
_NAMES = ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"]


def files(file: str | None) -> FormatFiles:
    return FILES if file is None else FormatFiles()


def recognises(place: SaePlace) -> bool:
    return (place.folder / WEIGHTS).is_file()


def facts(place: SaePlace) -> dict[str, Any]:
    return {}


def record(place: SaePlace) -> SaeRecord:
    """The record that follows from the folder's path inside a Gemma Scope repository."""
    parts = place.parts
    repositories = [match for part in parts if (match := _REPOSITORY.search(part))]
    layers = [match[1] for part in parts if (match := _LAYER.fullmatch(part))]
    if len(repositories) != 1:
        return SaeRecord()
    size, kind, site = repositories[0].groups()
    return SaeRecord(
        hook=_HOOKS[site].format(layers[0]) if len(layers) == 1 else None,
        model_name=f"google/gemma-2-{size}" + ("-it" if kind == "it" else ""),
        prepend_bos=True,
        context_size=1024,
    )


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path = place.folder
    tensors = read_npz(sae_file(path, WEIGHTS), _NAMES, device, {"w_enc": "W_enc", "w_dec": "W_dec"})
    stored = pick(path, WEIGHTS, tensors, _NAMES, "Gemma Scope")
    return SAEWeights(
        architecture="jumprelu",
        w_enc=stored["W_enc"],
        b_enc=stored["b_enc"],
        w_dec=stored["W_dec"],
        b_dec=stored["b_dec"],
        extra={"threshold": per_feature(stored["threshold"], len(stored["b_enc"]))},
        record=record(place),
    )
