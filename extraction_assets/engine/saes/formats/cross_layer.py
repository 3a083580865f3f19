"""Layers of cross-layer transcoders as mntss publishes them: ``W_enc_12.safetensors`` and ``config.yaml``.

Each layer's encoder has a file; its decoders, [F, layers, D] in another file, add up over layers, so that one layer
reconstructs nothing alone. It is read to encode only (names as in circuit-tracer's ``load_clt`` and in sae-lens's
loader ``mntss_clt_layer_transcoder``, which adds up the decoders of one layer, and says not to reconstruct with that).
Some hold thresholds, ``threshold_12`` [F], which circuit-tracer applies and sae-lens leaves out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_yaml_object
from extraction_assets.engine.saes.formats.shared.files import (
    per_feature,
    pick,
    read_safetensors,
    require_files,
    sae_file,
    text_or_none,
)
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import SAEWeights

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "config.yaml", "W_enc_<layer>.safetensors"
LOADERS = ("mntss_clt_layer_transcoder",)

_FILE = re.compile(r"W_enc_(\d+)\.safetensors")


def files(file: str | None) -> FormatFiles:
    return FormatFiles((CONFIG, file)) if file is not None and _FILE.fullmatch(file) else FormatFiles()


def recognises(place: SaePlace) -> bool:
    return (place.folder / str(place.file)).is_file()


def facts(place: SaePlace) -> dict[str, Any]:
    return {}


def record(place: SaePlace) -> SaeRecord:
    """The record of model and hook in ``config.yaml``, with the layer of the file's name."""
    config = read_yaml_object(sae_file(place.folder, CONFIG))
    hook = text_or_none(config.get("feature_input_hook"))
    return SaeRecord(
        hook=None if hook is None else f"blocks.{_layer(place)}.{hook}",
        model_name=text_or_none(config.get("model_name")),
        prepend_bos=True,
    )


def _layer(place: SaePlace) -> str:
    match = _FILE.fullmatch(place.file or "")
    assert match is not None, "a place of this format is such a file"
    return match[1]


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The encoder on ``device``; raises CheckpointError if it cannot be used."""
    path, file, layer = place.folder, str(place.file), _layer(place)
    require_files(path, CONFIG, file)
    tensors = read_safetensors(path, file, device, place.part)
    threshold = f"threshold_{layer}"
    names = [f"{name}_{layer}" for name in ("W_enc", "b_enc", "b_dec")]
    names += [threshold] if threshold in tensors else []
    stored = pick(path, file, tensors, names, "cross-layer")
    w_enc, b_enc, b_dec = (stored[name] for name in names[:3])
    extra = {"threshold": per_feature(stored[threshold], len(b_enc))} if threshold in stored else {}
    return SAEWeights(
        architecture="jumprelu" if extra else "standard",
        w_enc=w_enc.t(),
        b_enc=b_enc,
        w_dec=None,
        b_dec=b_dec,
        extra=extra,
        record=record(place),
    )
