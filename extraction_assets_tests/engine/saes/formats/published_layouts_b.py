"""Small random checkpoints in further published layouts (``published_layouts``), one writer a layout."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from extraction_assets_tests.engine.saes.formats.published_layouts import D_IN, D_SAE, K, random, thresholds

BF16, F32 = torch.bfloat16, torch.float32


def linear_parameters(
    encoder: str = "encoder", decoder: str = "decoder", dtype: torch.dtype = F32
) -> dict[str, Tensor]:
    """Two linear layers as PyTorch stores them: weights [F, D] and [D, F], and biases."""
    tensors = {
        f"{encoder}.weight": random(D_SAE, D_IN, seed=1),
        f"{encoder}.bias": random(D_SAE, seed=2),
        f"{decoder}.weight": random(D_IN, D_SAE, seed=3),
        f"{decoder}.bias": random(D_IN, seed=4),
    }
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def with_unit_norm(tensors: dict[str, Tensor], name: str = "decoder.weight", dim: int = 0) -> dict[str, Tensor]:
    """With decoder vectors of norm 1, as OpenMOSS publishes them."""
    unit = tensors[name].float() / tensors[name].float().norm(dim=dim, keepdim=True)
    return {**tensors, name: unit.to(tensors[name].dtype)}


def write_llama_scope(
    root: Path, inside: str, *, scale: float = 3.5, tensors: Mapping[str, Tensor] | None = None, **changes: Any
) -> Path:
    """Llama Scope: ``hyperparams.json`` as OpenMOSS writes it, and ``checkpoints/final.safetensors`` in bfloat16.

    ``scale`` is what inputs are multiplied by.
    """
    (root / inside / "checkpoints").mkdir(parents=True)
    hook, norm = "blocks.15.hook_resid_post", math.sqrt(D_IN) / scale
    hyperparams = {
        "dtype": "torch.bfloat16",
        "hook_point_in": hook,
        "hook_point_out": hook,
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "expansion_factor": D_SAE // D_IN,
        "d_model": D_IN,
        "d_sae": D_SAE,
        "bias_init_method": "all_zero",
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.52734375 / scale,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": norm, "out": norm},
        "decoder_exactly_fixed_norm": False,
        "sparsity_include_decoder_norm": True,
        "use_glu_encoder": False,
        "top_k": 50,
    }
    (root / inside / "hyperparams.json").write_text(json.dumps({**hyperparams, **changes}))
    stored = with_unit_norm(linear_parameters(dtype=BF16)) if tensors is None else dict(tensors)
    save_file(stored, root / inside / "checkpoints" / "final.safetensors")
    return root


def openmoss_config(**changes: Any) -> dict[str, Any]:
    """``config.json`` as Llamascopium writes it."""
    hook = "blocks.15.hook_resid_post"
    config = {
        "sae_type": "sae",
        "hook_point_in": hook,
        "hook_point_out": hook,
        "use_glu_encoder": False,
        "d_model": D_IN,
        "expansion_factor": D_SAE / D_IN,
        "use_decoder_bias": True,
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True,
        "top_k": K,
        "use_triton_kernel": False,
        "jumprelu_threshold_window": 2.0,
    }
    return {**config, **changes}


def write_llama_scope_r1_distill(root: Path, inside: str, *, scale: float | None = 3.5, **changes: Any) -> Path:
    """Llama Scope R1 Distill: ``config.json`` and SAELens's file name for linear layers; ``scale`` as above, None for
    files that do not hold it."""
    (root / inside).mkdir(parents=True)
    hook = "blocks.15.hook_resid_post"
    config = openmoss_config(expansion_factor=D_SAE // D_IN, apply_decoder_bias_to_pre_encoder=False, **changes)
    (root / inside / "config.json").write_text(json.dumps(config))
    norm = {} if scale is None else {f"dataset_average_activation_norm.{hook}": torch.tensor(math.sqrt(D_IN) / scale)}
    log_threshold = {"log_jumprelu_threshold": thresholds(D_SAE, seed=5).log()}
    stored = {**with_unit_norm(linear_parameters()), **log_threshold, **norm}
    save_file(stored, root / inside / "sae_weights.safetensors")
    return root


def llamascopium_parameters(dtype: torch.dtype = F32) -> dict[str, Tensor]:
    """W_E [D, F], W_D [F, D], whose rows have norms between 0.8 and 2.5."""
    tensors = {
        "W_E": random(D_IN, D_SAE, seed=1),
        "b_E": random(D_SAE, seed=2),
        "W_D": random(D_SAE, D_IN, seed=3),
        "b_D": random(D_IN, seed=4),
        "activation_function.log_jumprelu_threshold": thresholds(D_SAE, seed=5).log(),
    }
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def write_llamascopium(
    root: Path, inside: str = "", *, norms: tuple[float, float] = (1.25, 5.0), dtype: torch.dtype = F32, **changes: Any
) -> Path:
    """Llamascopium's current form; ``norms`` are the average norms of input and output in the dataset."""
    (root / inside).mkdir(parents=True, exist_ok=True)
    config = openmoss_config(**changes)
    (root / inside / "config.json").write_text(json.dumps(config, indent=4))
    stored = llamascopium_parameters(dtype)
    if not config["use_decoder_bias"]:
        del stored["b_D"]
    if config["act_fn"] != "jumprelu":
        del stored["activation_function.log_jumprelu_threshold"]
    for hook, norm in zip((config["hook_point_out"], config["hook_point_in"]), norms[::-1], strict=True):
        stored[f"dataset_average_activation_norm.{hook}"] = torch.tensor(norm, dtype=dtype)
    save_file(stored, root / inside / "sae_weights.safetensors", {"version": "2.0.0"})
    return root


def write_qwen_scope(root: Path, inside: str, width: int = 256) -> Path:
    """Qwen Scope: one ``layerN.sae.pt`` a layer, W_enc [F, D] and W_dec [D, F]; F is ``width``, for k is 50 or 100."""
    root.mkdir(parents=True, exist_ok=True)
    shapes = {"W_enc": (width, D_IN), "W_dec": (D_IN, width), "b_enc": (width,), "b_dec": (D_IN,)}
    torch.save({name: random(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}, root / inside)
    return root


def write_goodfire(root: Path, inside: str) -> Path:
    """Goodfire: one file with two linear layers."""
    root.mkdir(parents=True, exist_ok=True)
    torch.save(linear_parameters("encoder_linear", "decoder_linear"), root / inside)
    return root


def write_deepseek_r1(root: Path, inside: str) -> Path:
    """qresearch: the same by other names, in bfloat16."""
    root.mkdir(parents=True, exist_ok=True)
    torch.save(linear_parameters(dtype=BF16), root / inside)
    return root


def write_kissane(root: Path, inside: str, **changes: Any) -> Path:
    """ckkissane's SAEs of attention: ``NAME.pt`` and ``NAME_cfg.json``."""
    root.mkdir(parents=True, exist_ok=True)
    shapes = {"W_enc": (D_IN, D_SAE), "W_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
    torch.save({name: random(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}, root / inside)
    config = {
        "seq_len": 128,
        "enc_dtype": "fp32",
        "model_name": "gpt2-small",
        "site": "z",
        "layer": 0,
        "head": "cat",
        "concat_heads": True,
        "act_name": "blocks.0.attn.hook_z",
        "act_size": D_IN,
        "dict_size": D_SAE,
    }
    (root / f"{inside.removesuffix('.pt')}_cfg.json").write_text(json.dumps({**config, **changes}))
    return root


MWHANNA_CONFIG = """\
model_name: "Qwen/Qwen3-4B"
model_kind: "transcoder_set"
feature_input_hook: "mlp.hook_in"
feature_output_hook: "mlp.hook_out"
scan: "qwen3-4b"
"""


def write_mwhanna(
    root: Path,
    inside: str,
    *,
    config: str | None = MWHANNA_CONFIG,
    training: str = "wandb-config.yaml",
    **tensors: Tensor,
) -> Path:
    """circuit-tracer's transcoders: ``layer_N.safetensors`` in bfloat16, and how they were trained."""
    root.mkdir(parents=True, exist_ok=True)
    shapes = {"W_enc": (D_SAE, D_IN), "W_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
    stored = {name: random(*shape, seed=seed).to(BF16) for seed, (name, shape) in enumerate(shapes.items())}
    save_file({**stored, **tensors}, root / inside)
    if config is not None:
        (root / "config.yaml").write_text(config)
    logged = {"d_model": D_IN, "d_feature": D_SAE, "batch_size": 8192, "act_fn": "relu"}
    (root / training).write_text("".join(f"{key}:\n  desc: null\n  value: {value}\n" for key, value in logged.items()))
    return root
