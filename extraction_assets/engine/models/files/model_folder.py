"""The folder of a language model: checks its files before transformers opens them, and turns errors into one sentence.

transformers opens what it finds: it waits for a named pipe, reads a file of any size, and fails in many ways.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from extraction_assets.engine.corpora.documents import CorpusError
from extraction_assets.engine.file_boundary import CheckpointError, CheckpointFile, read_json_object
from extraction_assets.engine.file_boundary.checkpoint_file import NOT_THE_FILES_FAULT, one_line, shown

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
ADAPTER = "adapter_config.json"

_OPENED = (".json", ".jsonl", ".safetensors", ".txt", ".model", ".py", ".jinja", ".bpe", ".codes", ".tiktoken")
"""What transformers may open of a folder, by how its name ends."""
_MOST_JSON = 512 << 20
"""The largest tokenizer.json have 40 MB."""
_MOST_CONFIG = 16 << 20
_MOST_BLOCKS = 10_000
_BLOCKS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers", "encoder_layers")


def model_file(folder: Path, name: str) -> CheckpointFile:
    """File ``name`` of the language model in ``folder``."""
    return CheckpointFile("language model", folder, name)


def check_model_folder(folder: Path) -> None:
    """Raises CheckpointError if a file that transformers would open is no regular file or too large, where
    ``config.json`` is not a JSON object or states more blocks than a model can have, or where there is an adapter,
    which would not be applied. A missing ``config.json`` is reported where it is needed."""
    for name in sorted(path.name for path in folder.iterdir() if path.name.endswith(_OPENED)):
        model_file(folder, name).size(_MOST_JSON if name.endswith(".json") else None)
    if not (folder / CONFIG).exists():
        return
    config = model_configuration(folder)
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        _check_sizes(folder, part)
    if (folder / ADAPTER).exists():
        raise model_file(folder, ADAPTER).error(
            "says that there is an adapter (PEFT), which is not applied here: merge it into the model's weights and "
            "save these, or remove the file to run the model without it"
        )


def model_configuration(folder: Path) -> dict[str, Any]:
    """``config.json`` of the language model in ``folder``. Raises CheckpointError."""
    return read_json_object(model_file(folder, CONFIG), _MOST_CONFIG)


def block_count(folder: Path) -> int | None:
    """Blocks of the language model in ``folder``, as its configuration says; None if it does not say so by a name that
    is known here. Raises CheckpointError."""
    config = model_configuration(folder)
    parts = (config, *(value for value in config.values() if isinstance(value, dict)))
    return next((part[name] for part in parts for name in _BLOCKS if isinstance(part.get(name), int)), None)


def has_own_code(folder: Path) -> bool:
    """Whether the model in ``folder`` is made by Python code that comes with it, where that is trusted."""
    classes = model_configuration(folder).get("auto_map")
    return isinstance(classes, dict) and "AutoModel" in classes


def _check_sizes(folder: Path, part: dict[str, Any]) -> None:
    for name in _BLOCKS:
        count = part.get(name)
        if isinstance(count, int) and not 0 <= count <= _MOST_BLOCKS:
            raise model_file(folder, CONFIG).error(f"has {name} = {shown(count)}, expected 0 to {_MOST_BLOCKS:,}")


@contextlib.contextmanager
def reading_model(folder: Path, name: str = CONFIG) -> Iterator[None]:
    """Turns what transformers raises while it reads ``folder`` into a CheckpointError of one sentence, about the file
    that is damaged, or about file ``name``, which it began with.

    Errors of disks, permissions and memory stay as they are, and so do those about untrusted code.
    """
    from torch import OutOfMemoryError

    try:
        yield
    except (CheckpointError, CorpusError, MemoryError, OutOfMemoryError):
        raise
    except Exception as error:
        is_outside = isinstance(error, OSError) and error.errno in NOT_THE_FILES_FAULT
        if is_outside or "trust_remote_code" in str(error):
            raise
        text = f"describes what transformers cannot load ({one_line(error)})"
        is_its_own = name == CONFIG or _is_configuration(folder)
        raise damaged_json(folder) or model_file(folder, name if is_its_own else CONFIG).error(text) from error


def _is_configuration(folder: Path) -> bool:
    """Whether transformers takes ``config.json`` by itself, or would if its code were trusted."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder)
    except Exception as error:  # of any library and any kind
        return "trust_remote_code" in str(error)
    return True


def damaged_json(folder: Path) -> CheckpointError | None:
    """What is wrong with the first JSON file of ``folder`` that cannot be read; None if all can."""
    for path in sorted(folder.glob("*.json")):
        try:
            read_json_object(model_file(folder, path.name), _MOST_JSON)
        except CheckpointError as error:
            return error
    return None
