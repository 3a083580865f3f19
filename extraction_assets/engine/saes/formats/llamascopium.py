"""The on-disk form of OpenMOSS's Llamascopium: ``config.json`` and ``sae_weights.safetensors``.

Two generations of tensors: W_E, b_E, W_D, b_D and ``activation_function.log_jumprelu_threshold`` (Llamascopium, before
its renaming Language-Model-SAEs), and before those ``encoder.weight`` … ``log_jumprelu_threshold`` (Llama Scope R1
Distill). Formulas as in ``llamascopium/models/sae.py``: with x normalised and p = x W_E + b_E, a feature is p where the
activation function passes p times the norm of its decoder row (``sparsity_include_decoder_norm``; SAELens, which reads
the older form, compares p itself).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_header
from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.saes.formats.shared.files import (
    CheckpointError,
    pick,
    read_config,
    read_safetensors,
    require_files,
    sae_file,
)
from extraction_assets.engine.saes.formats.shared.openmoss import Factors, OpenMossConfig, factors
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import SAEWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONFIG, WEIGHTS = "config.json", "sae_weights.safetensors"
FILES = FormatFiles((CONFIG, WEIGHTS))
LOADERS = ("llama_scope_r1_distill",)

_CONFIG_OF_SAELENS = "cfg.json"  # SAELens's weights have the same file name
_KINDS = ("sae", "matryoshka_sae")  # the latter is trained otherwise, and encodes alike
_NORM = "dataset_average_activation_norm."
_THRESHOLD, _OLDER_THRESHOLD = "activation_function.log_jumprelu_threshold", "log_jumprelu_threshold"
_THRESHOLDS = {_THRESHOLD, _OLDER_THRESHOLD}
_CURRENT = {"w_enc": "W_E", "b_enc": "b_E", "w_dec": "W_D", "b_dec": "b_D"}
_OLDER = {"w_enc": "encoder.weight", "b_enc": "encoder.bias", "w_dec": "decoder.weight", "b_dec": "decoder.bias"}


def files(file: str | None) -> FormatFiles:
    return FILES if file is None else FormatFiles()


def recognises(place: SaePlace) -> bool:
    path = place.folder
    if not (path / CONFIG).is_file() or (path / _CONFIG_OF_SAELENS).exists():
        return False
    return {"hook_point_in", "expansion_factor"} <= read_config(path, CONFIG).keys()


def facts(place: SaePlace) -> dict[str, Any]:
    """The registry's scale, where the files hold none."""
    config = _config(place)
    if place.published_scale is None or config.normalization != "expected_average_only_in":
        return {}
    is_stored = f"{_NORM}{config.hooks[0]}" in read_header(sae_file(place.folder, WEIGHTS))
    return {} if is_stored or config.is_transcoder else {"norm_scaling_factor": place.published_scale}


def record(place: SaePlace) -> SaeRecord:
    """The hooks of ``config.json``, and of a published SAE the model and the text."""
    config = _config(place)
    if place.published is None:
        return config.record()
    return config.record(model_name=place.published.model, prepend_bos=True, context_size=1024)


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path = place.folder
    require_files(path, *FILES.required)
    tensors = read_safetensors(path, WEIGHTS, device, place.part)
    is_older = "encoder.weight" in tensors
    config = _config(place, act_fn="jumprelu" if _THRESHOLDS & set(tensors) else "relu")
    config.refuse_gates()
    stored = _parameters(place, config, tensors, _OLDER if is_older else _CURRENT)
    w_enc, w_dec = (stored[name].t() if is_older else stored[name] for name in ("w_enc", "w_dec"))
    config.check_widths(len(w_enc), place.latent_dim(w_enc.shape[1]), _latents(config, w_enc))
    scale = _factors(place, config, tensors)
    return SAEWeights(
        architecture=config.architecture,
        w_enc=w_enc,
        b_enc=stored["b_enc"],
        w_dec=w_dec,
        b_dec=stored.get("b_dec", w_dec.new_zeros(w_dec.shape[1])),
        apply_b_dec_to_input=config.subtracts_decoder_bias,
        extra={"threshold": stored["log_threshold"].exp()} if config.architecture == "jumprelu" else {},
        k=config.whole("top_k", 50) if config.architecture == "topk" else 0,
        selects_by_decoder_norm=config.flag("sparsity_include_decoder_norm", not is_older),
        normalize_activations=config.normalization,
        norm_scaling_factor=None if scale is None else scale.of_input,
        output_scaling_factor=scale.of_output if config.is_transcoder and scale else None,
        is_transcoder=config.is_transcoder,
        record=record(place),
    )


def _config(place: SaePlace, act_fn: str = "relu") -> OpenMossConfig:
    """``config.json`` with Llamascopium's defaults, or ``act_fn``, in place of what is missing."""
    assumed = {"sae_type": "sae", "act_fn": act_fn, "norm_activation": "dataset-wise"}
    config = OpenMossConfig(place.folder, CONFIG, {**assumed, **read_config(place.folder, CONFIG)})
    if config["sae_type"] not in _KINDS:
        raise config.error(f"sae_type = {shown(config['sae_type'])} is not supported (known: {', '.join(_KINDS)})")
    return config


def _parameters(
    place: SaePlace, config: OpenMossConfig, tensors: Mapping[str, Tensor], names: dict[str, str]
) -> dict[str, Tensor]:
    """By the names of ``SAEWeights``, as they are stored; the threshold as ``log_threshold``."""
    wanted = dict(names)
    if not config.flag("use_decoder_bias", True):
        del wanted["b_dec"]
    if config.architecture == "jumprelu":
        wanted["log_threshold"] = _OLDER_THRESHOLD if names is _OLDER else _THRESHOLD
    picked = pick(place.folder, WEIGHTS, tensors, list(wanted.values()), str(config["act_fn"]))
    return {name: picked[stored] for name, stored in wanted.items()}


def _latents(config: OpenMossConfig, w_enc: Tensor) -> int:
    """d_model * expansion_factor, which may be a fraction."""
    factor = config.number("expansion_factor", config["expansion_factor"])
    latents = config.whole("d_model", w_enc.shape[0]) * factor
    return round(latents) if math.isclose(latents, round(latents), abs_tol=1e-6) else 0


def _factors(place: SaePlace, config: OpenMossConfig, tensors: Mapping[str, Tensor]) -> Factors | None:
    """Of the norms among the weights; None if they are not there."""
    if config.normalization != "expected_average_only_in":
        return None
    names = [f"{_NORM}{hook}" for hook in config.hooks]
    if names[0] not in tensors and not config.is_transcoder:
        return None
    norms = [_norm(config, name, tensors.get(name)) for name in names]
    found = factors(config.whole("d_model", 0), *norms)
    _compare_with_registry(place, found.of_input)
    return found


def _norm(config: OpenMossConfig, name: str, stored: Tensor | None) -> float:
    value = stored.item() if stored is not None and stored.numel() == 1 else None
    return config.number(f"{name} of {WEIGHTS}", value)


def _compare_with_registry(place: SaePlace, scale: float) -> None:
    sae = place.published
    if sae is None or sae.norm_scaling_factor is None or math.isclose(sae.norm_scaling_factor, scale, rel_tol=1e-3):
        return
    raise CheckpointError(
        f"SAE {place}: {WEIGHTS} has inputs multiplied by {scale:.6g}, but {sae.release}/{sae.sae_id} of SAELens's "
        f"registry by {sae.norm_scaling_factor:.6g}: the files are of another SAE"
    )
