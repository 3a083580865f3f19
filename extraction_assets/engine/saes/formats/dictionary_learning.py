"""The on-disk form of dictionary_learning: ``ae.pt`` (a state dict) and ``config.json``.

Formulas as in dictionary_learning 0.1 (``dictionary.py``, ``trainers/``). The file is read by
``torch.load(weights_only=True)``, which runs no code of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_state_dict
from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.saes.formats.shared.files import (
    CheckpointError,
    per_feature,
    pick,
    read_config,
    require_files,
    sae_file,
    text_or_none,
    whole_number,
    whole_or_none,
)
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import Architecture, SAEWeights, folded_decoder_norm

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONFIG, WEIGHTS = "config.json", "ae.pt"
FILES = FormatFiles((CONFIG, WEIGHTS))
LOADERS = ("dictionary_learning_1",)

# Names of W_enc [D, F] or its transpose, b_enc, W_dec [F, D] or its transpose, b_dec, by class.
_LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight", "b_dec": "b_dec"}
_PLAIN = {name: name for name in _LINEAR}
_CLASSES: dict[str, tuple[Architecture, dict[str, str], bool]] = {
    "AutoEncoder": ("standard", {**_LINEAR, "b_dec": "bias"}, True),
    "AutoEncoderNew": ("standard", {**_LINEAR, "b_dec": "decoder.bias"}, False),
    "GatedAutoEncoder": ("gated", {**_LINEAR, "b_enc": "gate_bias", "b_dec": "decoder_bias"}, True),
    "AutoEncoderTopK": ("topk", _LINEAR, True),
    "BatchTopKSAE": ("jumprelu", _LINEAR, True),
    "MatryoshkaBatchTopKSAE": ("jumprelu", _PLAIN, True),
    "JumpReluAutoEncoder": ("jumprelu", _PLAIN, False),
}
"""Class -> (architecture, names of its parameters, whether encode subtracts the decoder's bias)."""
_RESIDUAL = re.compile(r"resid_post_layer_(\d+)")
_FOLDER = re.compile(r"resid_post_layer_(\d+)(?:_checkpoints)?")


def files(file: str | None) -> FormatFiles:
    return FILES if file is None else FormatFiles()


def recognises(place: SaePlace) -> bool:
    return (place.folder / WEIGHTS).is_file()


def facts(place: SaePlace) -> dict[str, Any]:
    return {}


def record(place: SaePlace) -> SaeRecord:
    """The record of model, hook and text in ``config.json``."""
    config = read_config(place.folder, CONFIG)
    trainer, buffer = _part(config, "trainer"), _part(config, "buffer")
    return SaeRecord(
        hook=_hook(place, trainer),
        model_name=text_or_none(trainer.get("lm_name")),
        context_size=whole_or_none(buffer.get("ctx_len")),
    )


def _hook(place: SaePlace, trainer: dict[str, Any]) -> str | None:
    """The residual stream behind the trainer's layer, unless the module's name or the folder's speaks of another place.

    sae-lens looks at the layer alone; that of a module in a block is the same number.
    """
    named = text_or_none(trainer.get("submodule_name"))
    folders = [match[1] for part in place.parts if (match := _FOLDER.fullmatch(part))]
    site = None if named is None else _RESIDUAL.fullmatch(named)
    layers = {str(layer) for layer in (trainer.get("layer"), *([site[1]] if site else folders)) if layer is not None}
    if (named is not None and site is None) or len(layers) != 1:
        return None
    (layer,) = layers
    return f"blocks.{layer}.hook_resid_post" if layer.isdecimal() else None


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used.

    An ``AutoEncoder`` gets decoder vectors of norm 1, as its own ``from_pretrained`` gives them; sae-lens leaves them
    as they are, so that its features are those over the norms.
    """
    path = place.folder
    require_files(path, *FILES.required)
    trainer = _part(read_config(path, CONFIG), "trainer")
    name = trainer.get("dict_class")
    if not isinstance(name, str) or name not in _CLASSES:
        raise CheckpointError(
            f"SAE {path}: dict_class {shown(name)} of {CONFIG} is not supported (known: {', '.join(_CLASSES)})"
        )
    architecture, names, subtracts = _CLASSES[name]
    tensors = read_state_dict(sae_file(path, WEIGHTS), device)
    further = {"jumprelu": ["threshold"], "gated": ["r_mag", "mag_bias"]}.get(architecture, [])
    stored = pick(path, WEIGHTS, tensors, [*names.values(), *further], name)
    w_enc, w_dec = stored[names["W_enc"]], stored[names["W_dec"]]
    transposed = names["W_enc"] != "W_enc"
    extra = {"b_mag" if key == "mag_bias" else key: stored[key] for key in further}
    if architecture == "jumprelu":
        extra["threshold"] = per_feature(extra["threshold"], len(stored[names["b_enc"]]))
    weights = SAEWeights(
        architecture=architecture,
        w_enc=w_enc.t() if transposed else w_enc,
        b_enc=stored[names["b_enc"]],
        w_dec=w_dec.t() if transposed else w_dec,
        b_dec=stored[names["b_dec"]],
        decoder_is_transposed=transposed,
        apply_b_dec_to_input=subtracts,
        extra=extra,
        k=whole_number(path, _k(path, tensors, trainer), f"{CONFIG}: k") if architecture == "topk" else 0,
        record=record(place),
    )
    if name != "AutoEncoder":
        return weights
    weights.validate(path, WEIGHTS)
    return folded_decoder_norm(path, weights)


def _k(path: Path, tensors: Mapping[str, Tensor], trainer: dict[str, Any]) -> Any:
    if "k" not in tensors:
        return trainer.get("k", 0)
    if tensors["k"].numel() != 1:
        raise CheckpointError(
            f"SAE {path}: {WEIGHTS} holds k of shape {tuple(tensors['k'].shape)}, expected one number"
        )
    return tensors["k"].item()


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}
