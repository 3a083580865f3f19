"""The weights that the files of a language model hold, by their headers alone."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from extraction_assets.engine.file_boundary import CheckpointError, StoredTensor, read_header, read_json_object
from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.models.files.model_folder import CONFIG, INDEX, WEIGHTS, model_file

_MOST_TIMES, _FREE_NUMBERS = 16, 1 << 26


class StoredWeights(NamedTuple):
    """What transformers reads of a folder."""

    folder: Path
    file: str
    """The file to name in a message: the weights, or the index of several such files."""
    tensors: dict[str, StoredTensor]
    """By key of the checkpoint."""
    repeated: dict[str, list[str]]
    """Keys that several files hold, with these files: transformers takes one of them."""
    absent: dict[str, str]
    """Keys that the index names, with the file that is to hold each and does not."""
    not_read: list[str]
    """Files of an index that transformers does not look at, for there is a ``model.safetensors`` too."""


def read_stored_weights(folder: Path, config: Any = None) -> StoredWeights:
    """The tensors of the safetensors files that transformers would load from ``folder``, as ``model.safetensors`` or by
    its index; ``config`` is the model's configuration, which may name another file.

    Raises CheckpointError if a file of them is missing or damaged. Reads headers, no numbers.
    """
    chosen = getattr(config, "transformers_weights", None)
    first = chosen if isinstance(chosen, str) else WEIGHTS if (folder / WEIGHTS).is_file() else INDEX
    if not (folder / first).resolve().is_relative_to(folder.resolve()) and not (folder / first).is_symlink():
        raise model_file(folder, CONFIG).error(f"names weights outside of its folder, {shown(first)}")
    index: dict[str, str] = {}
    files = [first]
    if first.endswith(".index.json"):
        if not (folder / first).exists():
            raise model_file(folder, WEIGHTS).error("is missing: weights are read from safetensors files alone")
        index = _read_index(folder, first)
        files = sorted(set(index.values()))
    files += [name for name in getattr(type(config), "extra_files", ()) if (folder / name).is_file()]
    tensors: dict[str, StoredTensor] = {}
    holders: dict[str, list[str]] = defaultdict(list)
    for name in files:
        for key, stored in read_header(model_file(folder, name)).items():
            tensors[key] = stored
            holders[key].append(name)
    repeated = {key: names for key, names in holders.items() if len(names) > 1}
    absent = {key: name for key, name in index.items() if name not in holders[key]}
    return StoredWeights(folder, first, tensors, repeated, absent, _not_read(folder) if first == WEIGHTS else [])


def chooses_weights(folder: Path, files: Sequence[str]) -> bool:
    """Whether the index of a folder leaves out some of its safetensors ``files``, so that another index would load
    other weights. An index that names all of them adds nothing to what they hold.

    Raises CheckpointError if the index is damaged.
    """
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).exists():
        return False
    return not set(files) <= set(_read_index(folder, INDEX).values())


def refuse_oversized(described: int, stored: StoredWeights) -> None:
    """Raises CheckpointError if ``config.json`` describes a model of so many more numbers than the files hold that
    filling the rest would only take memory. Packed weights hold up to 8 numbers in one."""
    held = sum(math.prod(tensor.shape) for tensor in stored.tensors.values())
    if described > _MOST_TIMES * held + _FREE_NUMBERS:
        raise model_file(stored.folder, CONFIG).error(
            f"describes a model of {described:,} numbers, but {stored.file} holds {held:,}: they do not belong together"
        )


def _not_read(folder: Path) -> list[str]:
    """The files of an index beside ``model.safetensors``; none of an index that is damaged, since nothing reads it."""
    with contextlib.suppress(CheckpointError):
        if (folder / INDEX).is_file():
            shards = set(_read_index(folder, INDEX).values()) - {WEIGHTS}
            return sorted(name for name in shards if (folder / name).is_file())
    return []


def _read_index(folder: Path, name: str) -> dict[str, str]:
    """Key -> file of an index."""
    file = model_file(folder, name)
    index = read_json_object(file)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise file.error('has no "weight_map" that says which file holds which weight')
    if not isinstance(index.get("metadata"), dict):
        raise file.error('has no "metadata" object, without which transformers does not read it: add "metadata": {}')
    for key, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise file.error(f"says that {shown(key)} is in {shown(shard)}, which is no safetensors file of its folder")
    return weight_map
