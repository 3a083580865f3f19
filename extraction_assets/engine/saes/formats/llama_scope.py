"""Llama Scope's on-disk form: ``hyperparams.json`` and ``checkpoints/final.safetensors`` (He et al. 2024).

Features are those of SAELens: of inputs that are multiplied by s = sqrt(d_model) / their average norm in the dataset.
OpenMOSS folds s into biases and decoder instead, so its features are smaller by s, and so is ``jump_relu_threshold``,
which belongs to decoder rows of norm 1 (``SparseAutoEncoder.from_config`` of Language-Model-SAEs in 2024:
``standardize_parameters_of_dataset_activation_scaling``, then ``transform_to_unit_decoder_norm`` where
``sparsity_include_decoder_norm``; SAELens leaves the latter out).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.saes.formats.shared.files import pick, read_config, read_safetensors, require_files
from extraction_assets.engine.saes.formats.shared.openmoss import Factors, OpenMossConfig, factors
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import Normalization, SAEWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONFIG, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
FILES = FormatFiles((CONFIG, WEIGHTS))
LOADERS = ("llama_scope",)

_MODEL = "meta-llama/Llama-3.1-8B"
_SERIES = re.compile(r"Llama3_1-8B-Base-L(\d+|X)(R|A|M|TC)-\d+x")


def files(file: str | None) -> FormatFiles:
    return FILES if file is None else FormatFiles()


def recognises(place: SaePlace) -> bool:
    return (place.folder / CONFIG).is_file()


def facts(place: SaePlace) -> dict[str, Any]:
    return {}


def record(place: SaePlace) -> SaeRecord:
    """The hooks of ``hyperparams.json``; of the published series, whose names say so, also model and text."""
    config = _config(place)
    if not any(_SERIES.search(part) for part in place.parts):
        return config.record()
    return config.record(
        model_name=_MODEL, prepend_bos=True, context_size=1024, dataset_path="cerebras/SlimPajama-627B"
    )


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path, config = place.folder, _config(place)
    require_files(path, *FILES.required)
    config.refuse_gates()
    names = ["encoder.weight", "encoder.bias", "decoder.weight"]
    names += ["decoder.bias"] if config.flag("use_decoder_bias", True) else []
    stored = pick(path, WEIGHTS, read_safetensors(path, WEIGHTS, device, place.part), names, "Llama Scope")
    w_enc, w_dec = stored["encoder.weight"].t(), stored["decoder.weight"].t()
    latent_dim = place.latent_dim(w_enc.shape[1])
    config.check_widths(len(w_enc), latent_dim, config.whole("d_sae", latent_dim))
    threshold, width = _threshold(config), w_enc.shape[1]
    weights = SAEWeights(
        architecture="jumprelu" if threshold else config.architecture,
        w_enc=w_enc,
        b_enc=stored["encoder.bias"],
        w_dec=w_dec,
        b_dec=stored.get("decoder.bias", w_dec.new_zeros(w_dec.shape[1])),
        apply_b_dec_to_input=config.subtracts_decoder_bias,
        extra={"threshold": w_dec.new_full((width,), threshold)} if threshold else {},
        k=config.whole("top_k", 0) if config.architecture == "topk" and not threshold else 0,
        is_transcoder=config.is_transcoder,
        record=record(place),
    )
    weights.validate(place, WEIGHTS)
    return replace(_as_for_inference(weights, w_dec, config), normalize_activations=_left_to_do(config))


def _config(place: SaePlace) -> OpenMossConfig:
    """``hyperparams.json``, with what SAELens takes for granted in place of what is missing."""
    assumed = {"act_fn": "jumprelu", "norm_activation": "dataset-wise"}
    return OpenMossConfig(place.folder, CONFIG, {**assumed, **read_config(place.folder, CONFIG)})


def _threshold(config: OpenMossConfig) -> float | None:
    """Of a JumpReLU, and of a TopK that was converted to one for inference."""
    stated = config["jump_relu_threshold"]
    if config.architecture == "standard" or (config.architecture == "topk" and stated in (None, 0)):
        return None
    return config.number("jump_relu_threshold", stated)


def _factors(config: OpenMossConfig) -> Factors:
    if config.normalization != "expected_average_only_in":
        return Factors(1.0, 1.0)
    norms = config["dataset_average_activation_norm"]
    if not isinstance(norms, dict):
        raise config.error(f"dataset_average_activation_norm = {shown(norms)}, expected the norms of in and out")
    found = [config.number(f"dataset_average_activation_norm.{key}", norms.get(key)) for key in ("in", "out")]
    scale = factors(config.whole("d_model", 0), *found)
    if not config.is_transcoder and scale.of_input != scale.of_output:
        raise config.error(f"dataset_average_activation_norm of one hook is {found[0]} in and {found[1]} out")
    return scale


def _as_for_inference(weights: SAEWeights, w_dec: Tensor, config: OpenMossConfig) -> SAEWeights:
    """With the factors of input and output in the weights, and decoder rows of norm 1 where the threshold is of these.

    Overwrites the matrices, which have several GiB.
    """
    scale, has_unit_norm = _factors(config), config.flag("sparsity_include_decoder_norm", False)
    norms: Tensor = w_dec.norm(dim=1).clamp(min=1e-8)  # [F]
    norms = norms if has_unit_norm else norms.new_ones(len(norms))
    of_threshold = scale.of_output if has_unit_norm else scale.of_input
    return replace(
        weights,
        w_enc=weights.w_enc.mul_(norms * scale.of_input),
        b_enc=weights.b_enc * norms,
        w_dec=w_dec.div_((norms * scale.of_output)[:, None]),
        b_dec=weights.b_dec / scale.of_output,
        extra={name: threshold * of_threshold for name, threshold in weights.extra.items()},
    )


def _left_to_do(config: OpenMossConfig) -> Normalization:
    """What is done to each input: nothing where a constant factor is in the weights."""
    return "none" if config.normalization == "expected_average_only_in" else config.normalization
