"""SAELens's on-disk form: ``cfg.json`` and ``sae_weights.safetensors`` (sae-lens 6)."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from extraction_assets.engine.sae_formats.weights import CheckpointError, SAEWeights

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
FILES = f"{CONFIG} and {WEIGHTS}"

_EXTRA = {"standard": [], "jumprelu": ["threshold"], "topk": [], "gated": ["r_mag", "b_mag"]}
# Settings that change what encode computes, with the values under which it is one matrix product.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "normalize_activations": ("none", None),
    "reshape_activations": ("none", None),
    "activation_fn": ("relu", "topk", None),
    "activation_fn_str": ("relu", "topk", None),
}


def recognises(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / WEIGHTS).is_file()


def read(path: Path) -> SAEWeights:
    """The checkpoint in folder ``path``; raises CheckpointError where it cannot be used."""
    config = _read_config(path)
    architecture = config.get("architecture", "standard")
    if architecture not in _EXTRA:
        known = ", ".join(_EXTRA)
        raise CheckpointError(f"SAE {path}: architecture {architecture!r} is not supported (known: {known})")
    for key, values in _SUPPORTED.items():
        if config.get(key) not in values:
            raise CheckpointError(f"SAE {path}: {key} = {config[key]!r} is not supported")
    if architecture == "standard" and "topk" in (
        config.get("activation_fn"),
        config.get("activation_fn_str"),
    ):
        raise CheckpointError(f"SAE {path}: a standard architecture with a topk activation function is not supported")
    tensors = _read_tensors(path, ["W_enc", "W_dec", "b_dec", *_EXTRA[architecture]], architecture)
    return SAEWeights(
        architecture=architecture,
        w_enc=tensors["W_enc"],
        b_enc=tensors["b_gate" if architecture == "gated" else "b_enc"],
        w_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        # sae-lens 6 leaves a setting out of cfg.json only where it is at its default, True for this one
        apply_b_dec_to_input=bool(config.get("apply_b_dec_to_input", True)),
        extra={name: tensors[name] for name in _EXTRA[architecture]},
        k=_whole_number(path, config.get("k", 0), "k"),
        rescale_acts_by_decoder_norm=bool(config.get("rescale_acts_by_decoder_norm", False)),
        metadata=config.get("metadata", {}),
    )


def _whole_number(path: Path, value: Any, name: str) -> int:
    if not isinstance(value, int):
        raise CheckpointError(f"SAE {path}: {name} must be a whole number, got {value!r}")
    return value


def _read_config(path: Path) -> dict[str, Any]:
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise CheckpointError(f"SAE {path}: {name} is missing")
    try:
        config = json.loads((path / CONFIG).read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"SAE {path}: {CONFIG} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"SAE {path}: {CONFIG} is not a JSON object")
    return config


def _read_tensors(path: Path, names: list[str], architecture: str) -> dict[str, Tensor]:
    names = [*names, "b_gate" if architecture == "gated" else "b_enc"]
    try:
        tensors = load_file(path / WEIGHTS)
    except SafetensorError as error:
        raise CheckpointError(f"SAE {path}: {WEIGHTS} cannot be read ({error}); is it cut short?") from error
    missing = [name for name in names if name not in tensors]
    if missing:
        raise CheckpointError(
            f"SAE {path}: {WEIGHTS} lacks {', '.join(missing)}, which a {architecture} SAE needs; "
            f"it holds {', '.join(sorted(tensors))}"
        )
    return {name: tensors[name].float() for name in names}
