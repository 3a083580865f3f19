"""SAELens's on-disk form: ``cfg.json`` and ``sae_weights.safetensors`` (sae-lens 6, and the flat keys of 2 to 5).

Keys, their defaults and the formulas are those of sae-lens 6.54 (``SAE.load_from_disk``, ``handle_pre_6_0_config``);
``tanh-relu`` and the fine-tuning factor, which it no longer knows, of sae-lens 5.11 (``sae.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.saes.formats.shared.files import (
    CheckpointError,
    per_feature,
    pick,
    read_config,
    read_safetensors,
    require_files,
    text_or_none,
    true_or_false,
    whole_number,
    whole_or_none,
)
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import Architecture, SAEWeights
from extraction_assets.engine.saes.published import repository_overrides

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONFIG, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
FILES = FormatFiles((CONFIG, WEIGHTS), (SCALER,))
LOADERS = ("sae_lens",)


class _Kind(NamedTuple):
    """What an architecture's name says."""

    base: Architecture
    is_transcoder: bool = False
    has_skip: bool = False
    threshold: str = "threshold"
    """Name of the tensor that holds a jumprelu's thresholds: [F], or one for all."""


_KINDS = {
    "standard": _Kind("standard"),
    "jumprelu": _Kind("jumprelu"),
    "topk": _Kind("topk"),
    "gated": _Kind("gated"),
    # As they are trained. Exported for inference, both are jumprelu SAEs.
    "batchtopk": _Kind("jumprelu", threshold="topk_threshold"),
    "matryoshka_batchtopk": _Kind("jumprelu", threshold="topk_threshold"),
    "transcoder": _Kind("standard", is_transcoder=True),
    "skip_transcoder": _Kind("standard", is_transcoder=True, has_skip=True),
    "jumprelu_transcoder": _Kind("jumprelu", is_transcoder=True),
    "jumprelu_skip_transcoder": _Kind("jumprelu", is_transcoder=True, has_skip=True),
}
_REFUSED = {
    "abstopk": "its encoder is signed: it keeps features with negative activations",
    "temporal": "its features depend on earlier positions, which one matrix product of a token cannot express",
    "matching_pursuit": "it encodes in several steps, which one matrix product cannot express",
}
# Settings that change what encode computes, with the values that are honoured. hook_z arrives with its heads side by
# side, as reshape_activations makes it.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "normalize_activations": ("none", None, "layer_norm", "constant_norm_rescale", "expected_average_only_in"),
    "reshape_activations": ("none", None, "hook_z"),
    "activation_fn": ("relu", "topk", "tanh-relu", None),
    "hook_head_index": (None,),
    "hook_head_index_out": (None,),
}
_RECORDED = frozenset({"context_size", "dataset_path", "hook_name", "model_from_pretrained_kwargs", "model_name"})
"""Entries that say where an SAE is from. What follows from them, as hooks and centered inputs, is in the settings."""
_RENAMED = {
    "activation_fn_str": "activation_fn",
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
}


def files(file: str | None) -> FormatFiles:
    return FILES if file is None else FormatFiles()


def recognises(place: SaePlace) -> bool:
    path = place.folder
    return (path / WEIGHTS).is_file() or ((path / CONFIG).is_file() and "architecture" in read_config(path, CONFIG))


def record(place: SaePlace) -> SaeRecord:
    """The record of model, hook and text in ``cfg.json``."""
    path, config = place.folder, _read_config(place)
    kwargs = config.get("model_from_pretrained_kwargs")
    prepend_bos = config.get("prepend_bos")
    return SaeRecord(
        hook=text_or_none(config.get("hook_name")),
        hook_out=text_or_none(config.get("hook_name_out")),
        is_transcoder=_kind_of(path, config).is_transcoder,
        model_name=text_or_none(config.get("model_name")),
        prepend_bos=prepend_bos if isinstance(prepend_bos, bool) else None,
        context_size=whole_or_none(config.get("context_size")),
        dataset_path=text_or_none(config.get("dataset_path")),
        model_from_pretrained_kwargs=kwargs if isinstance(kwargs, dict) else {},
    )


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path = place.folder
    require_files(path, *FILES.required)
    config = _read_config(place)
    kind, recorded = _kind_of(path, config), record(place)
    for key, values in _SUPPORTED.items():
        if config.get(key) not in values:
            raise CheckpointError(f"SAE {path}: {CONFIG}: {key} = {shown(config[key])} is not supported")
    flag = partial(true_or_false, path, CONFIG)
    tensors = _read_tensors(place, kind, config["architecture"], device)
    d_in, read = tensors["W_enc"].shape
    _check_widths(path, config, d_in, place.latent_dim(read))
    return SAEWeights(
        architecture=kind.base,
        w_enc=tensors["W_enc"],
        b_enc=tensors["b_gate" if kind.base == "gated" else "b_enc"],
        w_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        # True where it is left out, in every version; a transcoder's b_dec belongs to its output
        apply_b_dec_to_input=flag(config, "apply_b_dec_to_input", True) and not kind.is_transcoder,
        extra={name: tensors[name] for name in ("threshold", "r_mag", "b_mag") if name in tensors},
        k=_k(path, config) if kind.base == "topk" else 0,
        rescale_acts_by_decoder_norm=flag(config, "rescale_acts_by_decoder_norm", False),
        tanh=config.get("activation_fn") == "tanh-relu",
        normalize_activations=config.get("normalize_activations") or "none",
        norm_scaling_factor=_stored_scale(path),
        center_input=recorded.centered_input,
        center_target=recorded.centered_target,
        is_transcoder=kind.is_transcoder,
        w_skip=tensors["W_skip"].t() if kind.has_skip else None,
        record=recorded,
    )


def _check_widths(path: Path, config: dict[str, Any], d_in: int, d_sae: int) -> None:
    for key, width in (("d_in", d_in), ("d_sae", d_sae)):
        stated = whole_number(path, config.get(key, width), f"{CONFIG}: {key}")
        if stated != width:
            raise CheckpointError(
                f"SAE {path}: {CONFIG} says {key} = {stated}, but W_enc of {WEIGHTS} has {width}: the two files do not "
                "belong together"
            )


def _read_config(place: SaePlace) -> dict[str, Any]:
    """``cfg.json`` as the registry repairs it, with the names of sae-lens 6, all on one level."""
    raw = read_config(place.folder, CONFIG)
    metadata = raw.get("metadata")
    config = {**(metadata if isinstance(metadata, dict) else {}), **raw, **_repairs(place)}
    for old, new in _RENAMED.items():
        if old in config:
            config.setdefault(new, config[old])
    config.setdefault("architecture", "standard")
    if config.get("activation_fn") == "topk" and config["architecture"] == "standard":
        config["architecture"] = "topk"
    if isinstance(config.get("normalize_activations"), bool):  # before sae-lens 3
        config["normalize_activations"] = "expected_average_only_in" if config["normalize_activations"] else "none"
    return config


def facts(place: SaePlace) -> dict[str, Any]:
    """The registry's repairs that may change what encode computes, and its scale where that is used."""
    found = {key: value for key, value in _repairs(place).items() if key not in _RECORDED}
    needs_scale = _read_config(place).get("normalize_activations") == "expected_average_only_in"
    if needs_scale and place.published_scale is not None and _stored_scale(place.folder) is None:
        found["norm_scaling_factor"] = place.published_scale
    return found


def _repairs(place: SaePlace) -> Mapping[str, Any]:
    if place.published is not None:
        return place.published.overrides
    return repository_overrides(place.repository) if place.repository else {}


def _kind_of(path: Path, config: dict[str, Any]) -> _Kind:
    architecture = config["architecture"]
    if not isinstance(architecture, str) or architecture not in _KINDS:
        why = _REFUSED.get(str(architecture), f"known: {', '.join(_KINDS)}")
        raise CheckpointError(f"SAE {path}: {CONFIG}: architecture {shown(architecture)} is not supported ({why})")
    function = config.get("activation_fn")
    resolved = {"topk": "topk", "tanh-relu": "standard"}.get(
        function if isinstance(function, str) else "", architecture
    )
    if architecture != resolved:
        raise CheckpointError(
            f"SAE {path}: {CONFIG}: a {architecture} SAE with activation function {function} is not supported"
        )
    return _KINDS[architecture]


def _k(path: Path, config: dict[str, Any]) -> int:
    arguments = config.get("activation_fn_kwargs")
    old = dict(arguments) if isinstance(arguments, dict) else {}
    top_level = {"k": config["k"]} if "k" in config else {}
    options = {**old, **top_level}
    if options.get("signed"):
        raise CheckpointError(
            f"SAE {path}: {CONFIG}: its encoder is signed: it keeps features with negative activations"
        )
    unknown = sorted(set(options) - {"k", "signed"})
    if unknown:
        named = shown(", ".join(unknown))[1:-1]
        raise CheckpointError(f"SAE {path}: {CONFIG}: activation_fn_kwargs {named} of topk is not supported")
    return whole_number(path, options.get("k", 0), f"{CONFIG}: k")


def _read_tensors(place: SaePlace, kind: _Kind, architecture: str, device: torch.device | str) -> dict[str, Tensor]:
    """By the names of sae-lens's inference SAEs."""
    path = place.folder
    tensors = read_safetensors(path, WEIGHTS, device, place.part)
    in_logarithms = "log_threshold" in tensors  # jumprelu in training, before sae-lens 6
    threshold = "log_threshold" if in_logarithms else kind.threshold
    names = ["W_enc", "W_dec", "b_dec"]
    names += ["b_gate", "r_mag", "b_mag"] if kind.base == "gated" else ["b_enc"]
    names += [threshold] if kind.base == "jumprelu" else []
    names += ["W_skip"] if kind.has_skip else []
    picked = pick(path, WEIGHTS, tensors, names, architecture)
    if kind.base == "jumprelu":
        limit = picked.pop(threshold)
        picked["threshold"] = per_feature(limit.exp() if in_logarithms else limit, len(picked["b_enc"]))
    factor = tensors.get("finetuning_scaling_factor")
    factor = tensors.get("scaling_factor") if factor is None else factor
    if factor is not None and not factor.float().allclose(factor.float().new_ones(())):
        picked["W_dec"] = _finetuned(path, picked["W_dec"], factor)
    return picked


def _finetuned(path: Path, w_dec: Tensor, factor: Tensor) -> Tensor:
    """The decoder for features that it multiplies by a factor each; encode does without."""
    if factor.shape != w_dec.shape[:1]:
        raise CheckpointError(
            f"SAE {path}: {WEIGHTS}: the finetuning scaling factor has shape {tuple(factor.shape)}, expected "
            f"({len(w_dec)},)"
        )
    return w_dec * factor[:, None]


def _stored_scale(path: Path) -> float | None:
    """The scale that sae-lens stores beside a checkpoint in the middle of its training."""
    if not (path / SCALER).is_file():
        return None
    scale = read_config(path, SCALER).get("scaling_factor")
    if scale is None:
        return None
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale < math.inf:
        raise CheckpointError(f"SAE {path}: {SCALER} has scaling_factor = {shown(scale)}, expected a number above 0")
    return float(scale)
