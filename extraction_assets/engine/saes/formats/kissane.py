"""The on-disk form of Kissane and Krzyzanowski's attention SAEs: ``NAME.pt`` and ``NAME_cfg.json`` (ckkissane).

relu((x - b_dec) W_enc + b_enc) of a hook's output, mostly hook_z with all heads side by side (their ``AutoEncoder``;
sae-lens ``connor_rob_hook_z``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_state_dict
from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.saes.formats.shared.files import (
    CheckpointError,
    pick,
    read_config,
    require_files,
    sae_file,
    text_or_none,
    true_or_false,
    whole_number,
    whole_or_none,
)
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import SAEWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WEIGHTS = "NAME.pt"
LOADERS = ("connor_rob_hook_z",)

_SUFFIX, _CONFIG = ".pt", "_cfg.json"
_NAMES = ["W_enc", "b_enc", "W_dec", "b_dec"]
_HEADS = ("cat", "all", None)
"""Values of ``head`` by which an SAE reads all of them."""


def files(file: str | None) -> FormatFiles:
    return FormatFiles((file, _config_name(file))) if file is not None and file.endswith(_SUFFIX) else FormatFiles()


def recognises(place: SaePlace) -> bool:
    return (place.folder / _config_name(place.file or "")).is_file()


def facts(place: SaePlace) -> dict[str, Any]:
    return {}


def record(place: SaePlace) -> SaeRecord:
    """The model, hook and length of samples of its configuration."""
    config = _read_config(place)
    return SaeRecord(
        hook=text_or_none(config.get("act_name")),
        model_name=text_or_none(config.get("model_name")),
        prepend_bos=None if place.published is None else True,
        context_size=whole_or_none(config.get("seq_len")),
    )


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path, file = place.folder, place.file or WEIGHTS
    require_files(path, *files(file).required)
    config = _read_config(place)
    _refuse_single_heads(path, file, config)
    stored = pick(path, file, read_state_dict(sae_file(path, file), device), _NAMES, "hook_z")
    _check_widths(path, file, config, stored["W_enc"])
    return SAEWeights(
        architecture="standard",
        w_enc=stored["W_enc"],
        b_enc=stored["b_enc"],
        w_dec=stored["W_dec"],
        b_dec=stored["b_dec"],
        apply_b_dec_to_input=True,
        record=record(place),
    )


def _config_name(file: str) -> str:
    return file.removesuffix(_SUFFIX) + _CONFIG


def _read_config(place: SaePlace) -> dict[str, Any]:
    return read_config(place.folder, _config_name(place.file or WEIGHTS))


def _refuse_single_heads(path: Path, file: str, config: dict[str, Any]) -> None:
    name = _config_name(file)
    head = config.get("head")
    if isinstance(head, str | None) and head in _HEADS and true_or_false(path, name, config, "concat_heads", True):
        return
    value = f"head = {shown(head)}" if head not in _HEADS else "concat_heads = false"
    raise CheckpointError(f"SAE {path}: {name}: {value} is not supported: it reads all heads side by side")


def _check_widths(path: Path, file: str, config: dict[str, Any], w_enc: Tensor) -> None:
    name = _config_name(file)
    for key, width in zip(("act_size", "dict_size"), w_enc.shape, strict=True):
        stated = whole_number(path, config.get(key, width), f"{name}: {key}")
        if stated != width:
            raise CheckpointError(
                f"SAE {path}: {name} says {key} = {stated}, but W_enc of {file} has {width}: the two files do not "
                "belong together"
            )
