"""The on-disk form of circuit-tracer's transcoders, one file a layer: ``layer_N.safetensors`` with ``config.yaml``.

f(x W_enc^T + b_enc), features W_dec + b_dec, and W_skip x where the file has it (``SingleLayerTranscoder``). f is what
``activation`` says, a JumpReLU if the file holds ``activation_function.threshold``, or else relu
(``load_transcoder``). Those of mwhanna for Qwen 3 have their widths in ``wandb-config.yaml`` or
``wanb-config.yaml``, and for Qwen 3 14B no ``config.yaml``: model and hooks are then those of the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_header, read_yaml_object
from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.saes.formats.shared.files import (
    CheckpointError,
    pick,
    read_safetensors,
    require_files,
    sae_file,
    text_or_none,
    whole_number,
)
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import Architecture, SAEWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WEIGHTS, CONFIG = "layer_N.safetensors", "config.yaml"
TRAINING = ("wandb-config.yaml", "wanb-config.yaml")
"""How it was trained, under one of two names."""
LOADERS = ("mwhanna_transcoder",)

_FILE = re.compile(r"layer_(\d+)\.safetensors")
_QWEN = re.compile(r"qwen3-(\d+(?:\.\d+)?)b", re.IGNORECASE)
_HOOK_IN, _HOOK_OUT = "mlp.hook_in", "hook_mlp_out"
_SAME_HOOK = {"mlp.hook_out": _HOOK_OUT}
"""Names that TransformerLens 3 and nnsight's models have for a hook."""
_THRESHOLD = "activation_function.threshold"


def files(file: str | None) -> FormatFiles:
    return FormatFiles((file,), (CONFIG, *TRAINING)) if file is not None and _FILE.fullmatch(file) else FormatFiles()


def recognises(place: SaePlace) -> bool:
    return "W_enc" in read_header(sae_file(place.folder, place.file or WEIGHTS))


def facts(place: SaePlace) -> dict[str, Any]:
    return {}


def record(place: SaePlace) -> SaeRecord:
    """The model and the hooks of ``config.yaml``; without that file those of mwhanna's for what is known as such."""
    (_, config), layer = _read(place, CONFIG), _FILE.fullmatch(place.file or "")
    is_mwhannas = _model_by_name(place) is not None or bool(_read(place, *TRAINING)[1])
    hook, hook_out = (
        text_or_none(config.get(name)) or (default if is_mwhannas else None)
        for name, default in (("feature_input_hook", _HOOK_IN), ("feature_output_hook", _HOOK_OUT))
    )
    return SaeRecord(
        hook=f"blocks.{layer[1]}.{hook}" if layer and hook else None,
        hook_out=f"blocks.{layer[1]}.{_SAME_HOOK.get(hook_out, hook_out)}" if layer and hook_out else None,
        is_transcoder=True,
        model_name=text_or_none(config.get("model_name")) or _model_by_name(place),
        model_from_pretrained_kwargs={"fold_ln": False},
    )


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path, file = place.folder, place.file or WEIGHTS
    require_files(path, *files(file).required)
    _, config = _read(place, CONFIG)
    kind = config.get("model_kind", "transcoder_set")
    if kind != "transcoder_set":
        raise CheckpointError(f"SAE {path}: {CONFIG}: model_kind = {shown(kind)} is not supported for {file}")
    tensors = read_safetensors(path, file, device, place.part)
    architecture = _architecture(place, config, tensors)
    names = ["W_enc", "b_enc", "W_dec", "b_dec"]
    names += [name for name in ("W_skip",) if name in tensors]
    names += [_THRESHOLD] if architecture == "jumprelu" else []
    stored = pick(path, file, tensors, names, "circuit-tracer")
    weights = SAEWeights(
        architecture=architecture,
        w_enc=stored["W_enc"].t(),
        b_enc=stored["b_enc"],
        w_dec=stored["W_dec"],
        b_dec=stored["b_dec"],
        extra={"threshold": stored[_THRESHOLD]} if architecture == "jumprelu" else {},
        k=whole_number(path, config.get("k"), f"{CONFIG}: k") if architecture == "topk" else 0,
        is_transcoder=True,
        w_skip=stored["W_skip"].t() if "W_skip" in stored else None,
        record=record(place),
    )
    _check_training(place, weights)
    return weights


def _read(place: SaePlace, *names: str) -> tuple[str, dict[str, Any]]:
    """The first of these files that is there, a YAML mapping, with its name; an empty one if none is."""
    for name in names:
        file = sae_file(place.folder, name)
        if file.path.is_file() or file.irregular():
            return name, read_yaml_object(file)
    return names[0], {}


def _model_by_name(place: SaePlace) -> str | None:
    found = [match for part in place.parts if (match := _QWEN.search(part))]
    return f"Qwen/Qwen3-{found[-1][1]}B" if found else None


def _architecture(place: SaePlace, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Architecture:
    activation = config.get("activation", config.get("activation_function"))
    if activation in (None, "jumprelu", "jump_relu"):
        if _THRESHOLD not in tensors and activation is not None:
            raise CheckpointError(f"SAE {place.folder}: {place.file} lacks {_THRESHOLD}, which {CONFIG} asks for")
        return "jumprelu" if _THRESHOLD in tensors else "standard"
    known: dict[Any, Architecture] = {"relu": "standard", "topk": "topk"}
    if not isinstance(activation, str) or activation not in known:
        raise CheckpointError(
            f"SAE {place.folder}: {CONFIG}: activation = {shown(activation)} is not supported (known: relu, topk, "
            "jumprelu)"
        )
    return known[activation]


def _check_training(place: SaePlace, weights: SAEWeights) -> None:
    """Raises CheckpointError if how it was trained contradicts what is read."""
    name, config = _read(place, *TRAINING)
    for key, width in (("d_model", weights.d_in), ("d_feature", place.latent_dim(weights.latent_dim))):
        stated = whole_number(place.folder, _logged(config, key, width), f"{name}: {key}")
        if stated != width:
            raise CheckpointError(
                f"SAE {place.folder}: {name} says {key} = {stated}, but W_enc of {place.file} has {width}: the two "
                "files do not belong together"
            )
    trained = _logged(config, "act_fn", "relu")
    if weights.architecture == "standard" and trained != "relu":
        raise CheckpointError(f"SAE {place.folder}: {name}: act_fn = {shown(trained)} is not supported (known: relu)")


def _logged(config: Mapping[str, Any], key: str, default: Any) -> Any:
    """An entry as Weights & Biases logs it: a mapping with ``value``."""
    entry = config.get(key)
    return entry.get("value", default) if isinstance(entry, dict) else default if entry is None else entry
