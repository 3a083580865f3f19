"""SAEs with random directions that fire as often as real ones, one kind an architecture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.options import Options

_FEATURE_SLICE = 2048
_LEAST_THRESHOLD = 1e-3

Tensors = dict[str, Tensor]


def calibration_tokens(options: Options) -> int:
    """So many tokens that a feature with the wanted rate fires on two of them or more."""
    return max(4096, int(2 * options.latent_dim / options.features_per_token))


def save_sae(folder: Path, options: Options, outputs: Tensor) -> None:
    """An SAE of the options' architecture in SAELens's form, which fires at the wanted rate on hook ``outputs`` [n, D].

    On disk: two float32 tensors of F x D, and some of F.
    """
    generator = torch.Generator().manual_seed(1)
    size = options.latent_dim, options.width
    directions = torch.nn.functional.normalize(torch.randn(size, generator=generator), dim=1)  # [F, D]
    tensors, config = _ARCHITECTURES[options.architecture](options, directions, outputs)
    tensors |= {"W_enc": directions.T.contiguous(), "W_dec": directions, "b_dec": torch.zeros(options.width)}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    config |= {"d_in": options.width, "d_sae": options.latent_dim, "apply_b_dec_to_input": False}
    config |= {"normalize_activations": "none", "reshape_activations": "none"}
    (folder / "cfg.json").write_text(json.dumps(config))


def _relu(options: Options, directions: Tensor, outputs: Tensor) -> tuple[Tensors, dict[str, Any]]:
    return {"b_enc": -_quantiles(options, directions, outputs)}, {"architecture": "standard", "activation_fn": "relu"}


def _jump_relu(options: Options, directions: Tensor, outputs: Tensor) -> tuple[Tensors, dict[str, Any]]:
    threshold = _quantiles(options, directions, outputs).clamp(min=_LEAST_THRESHOLD)
    return {"b_enc": torch.zeros(options.latent_dim), "threshold": threshold}, {"architecture": "jumprelu"}


def _gated(options: Options, directions: Tensor, outputs: Tensor) -> tuple[Tensors, dict[str, Any]]:
    zeros = torch.zeros(options.latent_dim)
    tensors = {"b_gate": -_quantiles(options, directions, outputs), "r_mag": zeros, "b_mag": zeros.clone()}
    return tensors, {"architecture": "gated"}


def _top_k(options: Options, _directions: Tensor, _outputs: Tensor) -> tuple[Tensors, dict[str, Any]]:
    return {"b_enc": torch.zeros(options.latent_dim)}, {"architecture": "topk", "k": round(options.features_per_token)}


_ARCHITECTURES: dict[str, Callable[[Options, Tensor, Tensor], tuple[Tensors, dict[str, Any]]]] = {
    "relu": _relu,
    "jumprelu": _jump_relu,
    "gated": _gated,
    "topk": _top_k,
}


def _quantiles(options: Options, directions: Tensor, outputs: Tensor) -> Tensor:
    """The pre-activation that the wanted share of tokens exceed, for each feature: [F] on the CPU."""
    above = max(1, round(len(outputs) * options.features_per_token / options.latent_dim))
    limits = []
    for part in directions.split(_FEATURE_SLICE):
        strongest = (outputs @ part.to(outputs.device).T).topk(above + 1, dim=0).values  # [above + 1, f]
        limits.append((strongest[-1] + strongest[-2]) / 2)
    return torch.cat(limits).cpu()
