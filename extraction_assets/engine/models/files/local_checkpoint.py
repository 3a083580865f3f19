"""From a reference to a language model's checkpoint to its folder on this machine, and the files that count there."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from extraction_assets.engine import hub
from extraction_assets.engine.models.files.model_folder import CONFIG, INDEX, check_model_folder, reading_model
from extraction_assets.engine.models.files.small_files import wanted_from_hub
from extraction_assets.engine.models.files.stored_weights import chooses_weights
from extraction_assets.settings import CheckpointReference


class UntrustedCodeError(ValueError):
    """A model or tokenizer that needs Python code that comes with it, which is not trusted."""


class LocalCheckpoint(NamedTuple):
    """A language model's checkpoint on this machine, whose files ``resolve_checkpoint`` has looked at."""

    folder: Path
    trust_remote_code: bool = False
    """Whether Python code in the folder may run."""
    commit: str | None = None
    """The commit of a hub repository that was downloaded."""


def resolve_checkpoint(reference: CheckpointReference) -> LocalCheckpoint:
    """The checkpoint on this machine; one of the hub is downloaded as far as the cache does not have it.

    Python code of a hub repository is downloaded only where it is trusted. Raises FileNotFoundError that says what was
    tried, and CheckpointError for a file that transformers must not open (``check_model_folder``).
    """
    folder, commit = Path(reference.path).expanduser(), None
    if folder.is_dir():
        check_model_folder(folder)
    elif folder.is_absolute() or reference.path.startswith("."):
        raise FileNotFoundError(f"no checkpoint at {folder}: the folder does not exist")
    else:
        folder, commit = _from_hub(reference)
    return LocalCheckpoint(folder, reference.trust_remote_code, commit)


def checkpoint_files(checkpoint: LocalCheckpoint) -> list[Path]:
    """The files that decide what the model computes: its configuration and weights, sorted by name, the index of the
    weights if it chooses among them, and the model's Python code if that is trusted."""
    folder = checkpoint.folder
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} is not a language model: it lacks config.json or *.safetensors")
    index = [folder / INDEX] if chooses_weights(folder, [file.name for file in weights]) else []
    return [folder / CONFIG, *index, *weights, *code_files(checkpoint)]


def code_files(checkpoint: LocalCheckpoint) -> list[Path]:
    """The Python files of a checkpoint that may run, sorted by name; none if its code is not trusted."""
    return sorted(checkpoint.folder.glob("*.py")) if checkpoint.trust_remote_code else []


@contextlib.contextmanager
def explain_untrusted_code(folder: Path, name: str = CONFIG) -> Iterator[None]:
    """What transformers raises while it reads ``folder``, in one sentence: untrusted code, or a damaged file of it, by
    default file ``name``."""
    try:
        with reading_model(folder, name):
            yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UntrustedCodeError(
            f"{folder} cannot be loaded without running Python code that comes with it: read that code, and set "
            "language_model.trust_remote_code to true if you trust it"
        ) from error


def _from_hub(reference: CheckpointReference) -> tuple[Path, str]:
    """The folder in the hub's cache, with the files that count, and its commit."""
    what = f"no checkpoint {reference.path!r}: there is no such folder, and"
    source = hub.HubSource(what, reference.path, reference.revision)
    choose = partial(wanted_from_hub, code=reference.trust_remote_code)
    found = hub.download_chosen(source, choose, last=CONFIG)
    if found.refused is not None and not (found.folder / CONFIG).is_file():
        raise found.refused
    return found.folder, found.commit
