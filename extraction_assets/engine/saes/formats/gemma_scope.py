"""Gemma Scope's on-disk form: one ``params.npz`` with W_enc, b_enc, W_dec, b_dec and threshold (JumpReLU).

The file does not name model and hook; its path does, as in ``google/gemma-scope-2b-pt-res`` and there in
``layer_12/width_16k/average_l0_82`` (Lieberum et al. 2024; names of hooks as in sae-lens's loaders ``gemma_2`` and
``gemma_2_transcoder``). The SAEs in ``embedding`` were trained on rows of the embedding matrix, which the model
multiplies by sqrt(D) before anything else reads them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_npz
from extraction_assets.engine.saes.formats.shared.files import per_feature, pick, sae_file
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import SAEWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WEIGHTS = "params.npz"
FILES = FormatFiles((WEIGHTS,))
LOADERS = ("gemma_2", "gemma_2_transcoder")

_REPOSITORY = re.compile(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)\b")
_LAYER = re.compile(r"layer_(\d+)")
_WIDTH = re.compile(r"width_\d+[km]")
_HOOKS = {
    "res": "blocks.{}.hook_resid_post",
    "mlp": "blocks.{}.hook_mlp_out",
    "att": "blocks.{}.attn.hook_z",
    "transcoders": "blocks.{}.ln2.hook_normalized",
}
_TRANSCODERS_GIVE = "blocks.{}.hook_mlp_out"
_NAMES = ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"]


def files(file: str | None) -> FormatFiles:
    return FILES if file is None else FormatFiles()


def recognises(place: SaePlace) -> bool:
    return (place.folder / WEIGHTS).is_file()


def facts(place: SaePlace) -> dict[str, Any]:
    return {"reads_scaled_embeddings": True} if _is_of_embeddings(place) else {}


def _is_of_embeddings(place: SaePlace) -> bool:
    """Whether it lies in ``embedding/width_…/…``, with whatever before."""
    return any(
        part == "embedding" and _WIDTH.fullmatch(below)
        for part, below in zip(place.parts, place.parts[1:], strict=False)
    )


def record(place: SaePlace) -> SaeRecord:
    """The record that follows from the folder's path inside a Gemma Scope repository."""
    embedded = "hook_embed" if _is_of_embeddings(place) else None
    repositories = [match for part in place.parts if (match := _REPOSITORY.search(part))]
    layers = [match[1] for part in place.parts if (match := _LAYER.fullmatch(part))]
    if len(repositories) != 1:
        return SaeRecord(hook=embedded)
    size, kind, site = repositories[0].groups()
    is_transcoder, layer = site == "transcoders", layers[0] if len(layers) == 1 else None
    return SaeRecord(
        hook=embedded if layer is None else _HOOKS[site].format(layer),
        hook_out=_TRANSCODERS_GIVE.format(layer) if is_transcoder and layer is not None else None,
        is_transcoder=is_transcoder,
        model_name=f"google/gemma-2-{size}" + ("-it" if kind == "it" else ""),
        prepend_bos=True,
        context_size=1024,
    )


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path = place.folder
    tensors = read_npz(sae_file(path, WEIGHTS), _NAMES, device, {"w_enc": "W_enc", "w_dec": "W_dec"})
    stored = pick(path, WEIGHTS, tensors, _NAMES, "Gemma Scope")
    if _is_of_embeddings(place):
        _for_scaled_embeddings(stored)
    recorded = record(place)
    return SAEWeights(
        architecture="jumprelu",
        w_enc=stored["W_enc"],
        b_enc=stored["b_enc"],
        w_dec=stored["W_dec"],
        b_dec=stored["b_dec"],
        extra={"threshold": per_feature(stored["threshold"], len(stored["b_enc"]))},
        is_transcoder=recorded.is_transcoder,
        record=recorded,
    )


def _for_scaled_embeddings(stored: dict[str, Tensor]) -> None:
    """Changes parameters in place: for rows of the embedding matrix times sqrt(D), with features as they were trained.

    As sae-lens's loader ``gemma_2``: W_enc / sqrt(D), W_dec * sqrt(D), and b_dec as it is.
    """
    scale = len(stored["W_enc"]) ** 0.5
    stored["W_enc"] /= scale
    stored["W_dec"] *= scale
