"""Reading the files of a checkpoint: one clear error for whatever is wrong with them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


class CheckpointError(ValueError):
    """An SAE checkpoint that is missing, unknown, cut or unusable; the message names it and says why."""


def require_files(path: Path, *names: str) -> None:
    """Raises CheckpointError where folder ``path`` lacks a file."""
    for name in names:
        if not (path / name).is_file():
            raise CheckpointError(f"SAE {path}: {name} is missing")


def read_config(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in file ``name`` of folder ``path``."""
    require_files(path, name)
    try:
        config = json.loads((path / name).read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"SAE {path}: {name} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"SAE {path}: {name} is not a JSON object")
    return config


def read_safetensors(path: Path, name: str) -> dict[str, Tensor]:
    """All tensors of file ``name`` of folder ``path``, in float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_files(path, name)
    try:
        tensors = load_file(path / name)
    except SafetensorError as error:
        raise CheckpointError(f"SAE {path}: {name} cannot be read ({error}); is it cut short?") from error
    return {key: tensor.float() for key, tensor in tensors.items()}


def pick(path: Path, file: str, tensors: Mapping[str, Tensor], names: list[str], what: str) -> dict[str, Tensor]:
    """The tensors called ``names``; CheckpointError tells those that are missing beside those that are there."""
    missing = [name for name in names if name not in tensors]
    if missing:
        raise CheckpointError(
            f"SAE {path}: {file} lacks {', '.join(missing)}, which a {what} SAE needs; it holds "
            f"{', '.join(sorted(tensors))}"
        )
    return {name: tensors[name] for name in names}


def whole_number(path: Path, value: Any, name: str) -> int:
    """``value`` if it is a whole number, or a float that is one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"SAE {path}: {name} must be a whole number, got {value!r}")
    return value


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def whole_or_none(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def per_feature(value: Tensor, latent_dim: int) -> Tensor:
    """One number for each feature where the file holds one for all."""
    return value.expand(latent_dim).clone() if value.dim() == 0 else value
