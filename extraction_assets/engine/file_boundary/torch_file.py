"""Tensors of a file that torch.save wrote, read without running code of it."""

from __future__ import annotations

import pickle
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.file_boundary.checkpoint_file import CheckpointFile, shown
from extraction_assets.engine.file_boundary.stored_tensors import StoredTensors, copy_to, room_for

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MOST_PICKLE = 16 << 20
"""Bytes of the pickle that names the tensors; their numbers lie beside it."""


def read_state_dict(file: CheckpointFile, device: torch.device | str = "cpu") -> StoredTensors:
    """The state dict in ``file``, to be read to ``device``: dense tensors, those of floating point in float32.

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
        plain = {name: _plain(file, name, value) for name, value in loaded.items()}
    return StoredTensors({name: partial(_copied, file, name, device, tensor) for name, tensor in plain.items()})


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
    return value.detach()


def _copied(file: CheckpointFile, name: str, device: torch.device | str, tensor: Tensor) -> Tensor:
    """The tensor's numbers, which are in the file, where they cannot change with it."""
    import torch

    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    with file.reading():
        dtype = None if tensor.dtype in floats else tensor.dtype
        return copy_to(room_for(name, tuple(tensor.shape), dtype, device), tensor)
