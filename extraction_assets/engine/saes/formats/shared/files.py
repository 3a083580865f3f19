"""What the readers of all formats check in a checkpoint's files once these can be read (``file_boundary``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.engine import file_boundary
from extraction_assets.engine.file_boundary import CheckpointError, CheckpointFile, DecoderPart, StoredTensors
from extraction_assets.engine.file_boundary.checkpoint_file import shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOST_CONFIG_BYTES = 4 << 20
"""A configuration of an SAE has a few kilobytes."""
_SHOWN_NAMES = 30


def sae_file(path: Path, name: str) -> CheckpointFile:
    """File ``name`` of the SAE in folder ``path``."""
    return CheckpointFile("SAE", path, name)


def require_files(path: Path, *names: str) -> None:
    """Raises CheckpointError if a file of folder ``path`` is missing or is no regular file."""
    for name in names:
        sae_file(path, name).size()


def read_config(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in file ``name`` of folder ``path``."""
    return file_boundary.read_json_object(sae_file(path, name), MOST_CONFIG_BYTES)


def read_safetensors(
    path: Path, name: str, device: torch.device | str, part: DecoderPart | None = None
) -> StoredTensors:
    """The tensors of file ``name`` of folder ``path``, or a ``part`` of each, to be read to ``device``; floating point
    ones in float32."""
    if part is not None:
        return file_boundary.read_decoder_part(sae_file(path, name), device, part)
    return file_boundary.read_safetensors(sae_file(path, name), device)


def pick(path: Path, file: str, tensors: Mapping[str, Tensor], names: list[str], what: str) -> dict[str, Tensor]:
    """The tensors called ``names``: ``W_…``, ``….weight`` and skip connections are matrices, others have a number for
    each row or column.

    Raises CheckpointError with the names of those that are missing, or that are no floating point numbers of that form.
    """
    missing = [name for name in names if name not in tensors]
    if missing:
        held = ", ".join(shown(name)[1:-1] for name in sorted(tensors)[:_SHOWN_NAMES])
        raise CheckpointError(
            f"SAE {path}: {file} lacks {', '.join(missing)}, which a {what} SAE needs; it holds {held or 'nothing'}"
        )
    return {name: _checked(path, file, name, tensors[name]) for name in names}


def _checked(path: Path, file: str, name: str, tensor: Tensor) -> Tensor:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind != "float32":
        raise CheckpointError(f"SAE {path}: {file} holds {name} as {kind}, expected floating point numbers")
    is_matrix = name.lower().startswith("w_") or name.endswith((".weight", "skip_connection"))
    is_scalar = tensor.dim() == 0 and "threshold" in name  # one number for all features
    if not is_scalar and (tensor.dim() != 1 + is_matrix or tensor.numel() == 0):
        expected = "(rows, columns)" if is_matrix else "(numbers,)"
        raise CheckpointError(f"SAE {path}: {file} holds {name} of shape {tuple(tensor.shape)}, expected {expected}")
    return tensor


def whole_number(path: Path, value: Any, name: str) -> int:
    """``value`` if it is a whole number, or a float that is one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"SAE {path}: {name} must be a whole number, got {shown(value)}")
    return value


def true_or_false(path: Path, file: str, config: Mapping[str, Any], name: str, default: bool) -> bool:
    """Entry ``name`` of a configuration; ``default`` if it is missing, false if it is null. Any other value is refused,
    because ``bool`` of a text is true."""
    value = config.get(name, default)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise CheckpointError(f"SAE {path}: {file} has {name} = {shown(value)}, expected true or false")
    return value


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def whole_or_none(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def per_feature(value: Tensor, latent_dim: int) -> Tensor:
    """One number for each feature where the file holds one for all."""
    return value.expand(latent_dim).clone() if value.dim() == 0 else value
