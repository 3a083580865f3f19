"""Qwen Scope's on-disk form: one ``layerN.sae.pt`` a layer with W_enc [F, D], W_dec [D, F], b_enc and b_dec (TopK).

Model and k stand in the repository's name alone, ``Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50``: the k largest of
x W_enc^T + b_enc a token, where positive. Each reads what its layer gives to the residual stream.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary import read_state_dict
from extraction_assets.engine.saes.formats.shared.files import CheckpointError, pick, sae_file
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord
from extraction_assets.engine.saes.formats.shared.weights import SAEWeights

if TYPE_CHECKING:
    import torch

WEIGHTS = "layerN.sae.pt"
LOADERS = ("qwen_scope",)

_FILE = re.compile(r"layer(\d+)\.sae\.pt")
_REPOSITORY = re.compile(r"SAE-Res-(?P<model>[\w.-]+?)-W\d+K-L0_(?P<k>\d+)(?!\d)")
_NAMES = ["W_enc", "W_dec", "b_enc", "b_dec"]


def files(file: str | None) -> FormatFiles:
    return FormatFiles((file,)) if file is not None and _FILE.fullmatch(file) else FormatFiles()


def recognises(place: SaePlace) -> bool:
    return True  # the file's name is exact


def facts(place: SaePlace) -> dict[str, Any]:
    """The number of features that fire on a token."""
    return {"k": _k(place)}


def record(place: SaePlace) -> SaeRecord:
    """The layer by the file's name, the model by the repository's."""
    layer, series = _FILE.fullmatch(_file(place)), _series(place)
    return SaeRecord(
        hook=f"model.layers.{layer[1]}" if layer else None,
        model_name=f"Qwen/{series['model']}" if series else None,
    )


def read(place: SaePlace, device: torch.device | str) -> SAEWeights:
    """The checkpoint's weights on ``device``; raises CheckpointError if it cannot be used."""
    path, file = place.folder, _file(place)
    k = _k(place)
    stored = pick(path, file, read_state_dict(sae_file(path, file), device), _NAMES, "Qwen Scope")
    return SAEWeights(
        architecture="topk",
        w_enc=stored["W_enc"].t(),
        b_enc=stored["b_enc"],
        w_dec=stored["W_dec"].t(),
        b_dec=stored["b_dec"],
        k=k,
        record=record(place),
    )


def _file(place: SaePlace) -> str:
    return place.file or WEIGHTS


def _series(place: SaePlace) -> re.Match[str] | None:
    """What the innermost name says that is a repository's; the hub's cache has it as ``models--Qwen--SAE-Res-…``."""
    found = [match for part in place.parts if (match := _REPOSITORY.search(part))]
    return found[-1] if found else None


def _k(place: SaePlace) -> int:
    series = _series(place)
    if series is None:
        raise CheckpointError(
            f"SAE {place}: the number k of features that fire on a token is in the name of the repository alone, "
            "as in SAE-Res-Qwen3-1.7B-Base-W32K-L0_50: give the folder that name, or set release and sae_id"
        )
    return int(series["k"])
