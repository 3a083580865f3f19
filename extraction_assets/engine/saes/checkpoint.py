"""From an SAE's settings to its checkpoint: its folder on this machine or the hub, its files, its weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from extraction_assets.engine.saes.formats import (
    SaeRecord,
    SAEWeights,
    checkpoint_files,
    known_files,
    read_checkpoint,
    read_checkpoint_record,
)
from extraction_assets.settings import ResolvedSae, SaeReference, SaeSettings

CENTERED_REPOSITORIES = frozenset(
    {
        "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8",
        "jbloom/GPT2-Small-SAEs-Reformatted",
        "tommmcgrath/gpt2-small-mlp-out-saes",
    }
)
"""Hub repositories whose SAEs were trained with TransformerLens's ``center_writing_weights``, which their ``cfg.json``
does not say: sae-lens 6 adds it when it loads them (``config_overrides`` in its ``pretrained_saes.yaml``)."""


def sae_folder(sae: SaeReference) -> Path:
    """The local folder of an SAE's checkpoint; of a hub repository only that folder's checkpoint files are downloaded.

    Raises FileNotFoundError that says what was tried.
    """
    root = Path(sae.path).expanduser()
    if root.exists() or root.is_absolute() or sae.path.startswith("."):
        folder = root / (sae.subfolder or "")
        folder = folder.parent if folder.is_file() and folder.name in known_files() else folder
        if not folder.is_dir():
            raise FileNotFoundError(f"no checkpoint at {folder}: the folder does not exist")
        return folder
    return _hub_folder(sae)


def _hub_folder(sae: SaeReference) -> Path:
    from huggingface_hub import snapshot_download

    inside = Path(sae.subfolder or "")
    inside = inside.parent if inside.name in known_files() else inside
    patterns = [(inside / name).as_posix() for name in known_files()]
    try:
        root = Path(snapshot_download(sae.path, revision=sae.revision, allow_patterns=patterns))
    except Exception as error:
        raise FileNotFoundError(
            f"no checkpoint {sae.path!r}: there is no such folder, and the Hugging Face hub did not give it ({error})"
        ) from error
    if not any((root / pattern).is_file() for pattern in patterns):
        where = f"folder {inside.as_posix()!r}" if sae.subfolder else "its top folder"
        raise FileNotFoundError(
            f"{sae.path} has no SAE checkpoint in {where}: set subfolder to the folder of one SAE, as the files of the "
            "repository are listed on the hub"
        )
    return root / inside


def sae_files(sae: SaeReference) -> list[Path]:
    """The files that decide what an SAE computes, sorted by name."""
    return checkpoint_files(sae_folder(sae))


def encode_options(sae: SaeSettings) -> dict[str, Any]:
    """The settings, beside the files, that change what encode computes, where they are set."""
    options: dict[str, Any] = {}
    if sae.center_input is not None:
        options["center_input"] = sae.center_input
    if sae.fold_decoder_norm:
        options["fold_decoder_norm"] = True
    if sae.norm_scaling_factor is not None:
        options["norm_scaling_factor"] = sae.norm_scaling_factor
    return options


def read_sae(sae: ResolvedSae) -> SAEWeights:
    """Weights and architecture under the settings. Raises CheckpointError or FileNotFoundError."""
    return read_checkpoint(sae_folder(sae.checkpoint), **encode_options(sae))


def read_sae_record(sae: SaeReference) -> SaeRecord:
    """What the checkpoint records about model, hook and text, and what its repository implies; reads no weights."""
    record = read_checkpoint_record(sae_folder(sae))
    if sae.path not in CENTERED_REPOSITORIES:
        return record
    kwargs = {**record.model_from_pretrained_kwargs, "center_writing_weights": True}
    return replace(record, model_from_pretrained_kwargs=kwargs)
