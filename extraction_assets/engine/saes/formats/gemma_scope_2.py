"""Gemma Scope 2's on-disk form: ``params.safetensors`` (JumpReLU SAEs and transcoders of Gemma 3) and ``config.json``.

The configuration names hooks by paths of the text model, ``model.layers.17.self_attn.o_proj.input``. Where it is
missing, the folder's name says them, ``resid_post/layer_17_width_16k_l0_medium`` (as in sae-lens's loader ``gemma_3``).

A layer of a cross-layer transcoder is one file of several, ``clt/width_262k_l0_big/layer_3.safetensors``; its decoders,
w_dec [F, layers, D], add up over layers, so that it is read to encode only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_header
from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.saes.formats.shared.files import (
    CheckpointError,
    per_feature,
    pick,
    read_config,
    read_safetensors,
    sae_file,
    text_or_none,
    true_or_false,
)
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import SAEWeights

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "config.json", "params.safetensors"
FILES = FormatFiles((WEIGHTS,), (CONFIG,))
LOADERS = ("gemma_3",)

_NAMES = ["w_enc", "b_enc", "w_dec", "b_dec", "threshold"]
_SKIP = "affine_skip_connection"  # [D, D_out]
_REPOSITORY = re.compile(r"gemma-scope-2-(\w+-(?:pt|it))\b")
_LAYER = re.compile(r"layer_(\d+)_width_\w+")
_CLT_FILE = re.compile(r"layer_(\d+)\.safetensors")
_SITES = {
    "resid_post": ("model.layers.{}.output", None),
    "attn_out": ("model.layers.{}.self_attn.o_proj.input", None),
    "mlp_out": ("model.layers.{}.post_feedforward_layernorm.output", None),
    "transcoder": (
        "model.layers.{}.pre_feedforward_layernorm.output",
        "model.layers.{}.post_feedforward_layernorm.output",
    ),
}
"""Folder, with or without ``_all`` -> hook that is read, and that of a transcoder's output."""


def files(file: str | None) -> FormatFiles:
    if file is None:
        return FILES
    return FormatFiles((file,)) if _CLT_FILE.fullmatch(file) else FormatFiles()


def recognises(place: SaePlace) -> bool:
    if place.file is None:
        return (place.folder / WEIGHTS).is_file()
    return "w_enc" in read_header(sae_file(place.folder, place.file))


def facts(place: SaePlace) -> dict[str, Any]:
    return {}


def record(place: SaePlace) -> SaeRecord:
    """The record of hooks and model in ``config.json``, or else in the names of folder and repository."""
    config = {} if place.file else _read_config(place)
    by_name, by_name_out = _hooks_by_name(place)
    hook = text_or_none(config.get("hf_hook_point_in")) or by_name
    hook_out = text_or_none(config.get("hf_hook_point_out")) or by_name_out
    is_transcoder = hook_out is not None and hook_out != hook
    return SaeRecord(
        hook=hook,
        hook_out=hook_out if is_transcoder else None,
        is_transcoder=is_transcoder,
        model_name=_model(place, text_or_none(config.get("model_name"))),
        prepend_bos=True,
        context_size=1024,
    )


def _hooks_by_name(place: SaePlace) -> tuple[str | None, str | None]:
    """Hooks in and out that follow from the last two folders, or from the file of a cross-layer transcoder's layer."""
    if place.file and (match := _CLT_FILE.fullmatch(place.file)):
        return _SITES["transcoder"][0].format(match[1]), None
    *_, folder, name = ("", "", *place.parts)
    layer, site = _LAYER.fullmatch(name), _SITES.get(folder.removesuffix("_all"))
    if layer is None or site is None:
        return None, None
    hook, hook_out = site
    return hook.format(layer[1]), hook_out and hook_out.format(layer[1])


def _model(place: SaePlace, stated: str | None) -> str | None:
    """The model's id on the hub; configurations write ``gemma-v3-4b-pt``, and the smallest model has no ``-pt``."""
    repositories = [match[1] for part in place.parts if (match := _REPOSITORY.search(part))]
    if stated is None and len(repositories) != 1:
        return None
    name = (f"gemma-3-{repositories[0]}" if stated is None else stated).replace("-v3", "-3")
    name = name if "google" in name else f"google/{name}"
    return name.replace("-pt", "") if "270m" in name else name


def _read_config(place: SaePlace) -> dict[str, Any]:
    """``config.json``; {} where it is missing."""
    if not (place.folder / CONFIG).is_file() and not sae_file(place.folder, CONFIG).irregular():
        return {}
    config = read_config(place.folder, CONFIG)
    if config.get("architecture") != "jump_relu":
        raise CheckpointError(
            f"SAE {place}: {CONFIG}: architecture {shown(config.get('architecture'))} is not supported "
            "(known: jump_relu)"
        )
    return config


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    if place.file:
        return _read_layer(place, place.file, device)
    path, recorded = place.folder, record(place)
    tensors = read_safetensors(path, WEIGHTS, device, place.part)
    has_skip = _has_skip(place, tensors)
    if has_skip and not recorded.is_transcoder:
        raise CheckpointError(
            f"SAE {place}: {WEIGHTS} holds {_SKIP}, so it is a transcoder, but neither {CONFIG} nor the names of its "
            "folders say whose activations it gives: keep them as they are published"
        )
    stored = pick(path, WEIGHTS, tensors, [*_NAMES, *([_SKIP] if has_skip else [])], "Gemma Scope 2")
    return SAEWeights(
        architecture="jumprelu",
        w_enc=stored["w_enc"],
        b_enc=stored["b_enc"],
        w_dec=stored["w_dec"],
        b_dec=stored["b_dec"],
        extra={"threshold": per_feature(stored["threshold"], len(stored["b_enc"]))},
        is_transcoder=recorded.is_transcoder,
        w_skip=stored.get(_SKIP),
        record=recorded,
    )


def _read_layer(place: SaePlace, file: str, device: torch.device | str) -> SAEWeights:
    """A layer of a cross-layer transcoder, to encode only."""
    names = [name for name in _NAMES if name != "w_dec"]
    tensors = read_safetensors(place.folder, file, device, place.part)
    stored = pick(place.folder, file, tensors, names, "Gemma Scope 2")
    return SAEWeights(
        architecture="jumprelu",
        w_enc=stored["w_enc"],
        b_enc=stored["b_enc"],
        w_dec=None,
        b_dec=stored["b_dec"],
        extra={"threshold": per_feature(stored["threshold"], len(stored["b_enc"]))},
        record=record(place),
    )


def _has_skip(place: SaePlace, tensors: Mapping[str, Any]) -> bool:
    """Whether a transcoder has a skip connection, which configuration and tensors must agree on."""
    held = _SKIP in tensors
    if true_or_false(place.folder, CONFIG, _read_config(place), "affine_connection", held) != held:
        holds = "holds" if held else "lacks"
        raise CheckpointError(
            f"SAE {place}: {WEIGHTS} {holds} {_SKIP}, but {CONFIG} has affine_connection = {str(not held).lower()}: "
            "the two files do not belong together"
        )
    return held
