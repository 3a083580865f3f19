"""Tensors of a file that torch.save wrote, read without running code of it."""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary.checkpoint_file import CheckpointFile, shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MOST_PICKLE = 16 << 20
"""Bytes of the pickle that names the tensors; their numbers lie beside it."""


def read_state_dict(file: CheckpointFile, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The state dict in ``file``: dense tensors on ``device``, those of floating point in float32.

    Read by ``torch.load(weights_only=True)``, from torch's zip format alone, whose members are not packed, so that a
    file cannot grow; its numbers stay in the file until they are used. Raises CheckpointError for everything else.
    """
    import torch

    _check_archive(file)
    with file.reading():
        try:
            loaded = torch.load(file.path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:  # its message explains how to run the code anyway
            raise file.error(
                "holds more than tensors, and is not loaded, for that would run code of it: save its state_dict() alone"
            ) from error
        if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
            raise file.error("is not a state dict of tensors")
        return {name: _plain(file, name, value).to(device) for name, value in loaded.items()}


def _check_archive(file: CheckpointFile) -> None:
    size = file.size()
    with file.reading():
        if not zipfile.is_zipfile(file.path):
            raise file.error(
                "is not a file of torch.save in its zip format, or is cut short: save the state_dict again"
            )
        with zipfile.ZipFile(file.path) as archive:
            members = archive.infolist()
    if any(one.compress_type != zipfile.ZIP_STORED for one in members) or sum(one.file_size for one in members) > size:
        raise file.error("is a packed archive, which torch.save does not write: it is not read")
    pickles = [one for one in members if one.filename.endswith(".pkl")]
    if any(one.filename.endswith("constants.pkl") for one in pickles):
        raise file.error("is a TorchScript program, and is not loaded: save its state_dict() alone")
    if len(pickles) != 1 or pickles[0].file_size > _MOST_PICKLE:
        raise file.error("is not a file of torch.save: it has no pickle of tensors, or one that is too large")


def _plain(file: CheckpointFile, name: str, value: Any) -> Tensor:
    """A tensor whose numbers are all in the file: no view of fewer numbers, which could be of any size."""
    import torch

    if not isinstance(value, torch.Tensor):
        raise file.error(f"is not a state dict of tensors: {shown(name)} is a {type(value).__name__}")
    dense = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise file.error(f"holds {shown(name)} in a form that is not supported: save its state_dict() alone")
    tensor = value.detach()
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return tensor.to(torch.float32 if tensor.dtype in floats else tensor.dtype, copy=True)  # the file may change
