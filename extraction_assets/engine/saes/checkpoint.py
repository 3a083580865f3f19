"""From an SAE's settings to its checkpoint: its place on this machine or the hub, its files, its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.engine.saes.formats import (
    SaePlace,
    SaeRecord,
    SAEWeights,
    checkpoint_facts,
    checkpoint_files,
    files_on_hub,
    place_of,
    read_checkpoint,
    read_checkpoint_record,
)
from extraction_assets.engine.saes.published import PublishedSae, published_at, published_sae
from extraction_assets.settings import ResolvedSae, SaeReference, SaeSettings

if TYPE_CHECKING:
    import torch


def sae_place(sae: SaeReference) -> SaePlace:
    """Where an SAE's checkpoint lies; of a hub repository only its files are downloaded.

    Raises FileNotFoundError that says what was tried, and UnknownSae for a name that SAELens does not have.
    """
    published = None if sae.release is None else published_sae(sae.release, sae.sae_id or "")
    inside = published.path if published else sae.subfolder or ""
    if sae.path is not None and _is_local(sae.path):
        return _local_place(Path(sae.path).expanduser(), inside, published)
    repository = sae.path or (published.repository if published else "")
    published = published or published_at(repository, inside)
    root = _downloaded(repository, inside, sae.revision, published)
    return _in_repository(root, inside, repository, published)


def _is_local(path: str) -> bool:
    root = Path(path).expanduser()
    return root.exists() or root.is_absolute() or path.startswith(".")


def _local_place(root: Path, inside: str, published: PublishedSae | None) -> SaePlace:
    if published is not None and (root / inside).exists():
        return _in_repository(root, inside, published.repository, published)
    if published is not None:
        raise FileNotFoundError(
            f"{root} has no {inside}, which is {published.release}/{published.sae_id} in {published.repository}: "
            f"hf download {published.repository} --include '{inside}*' --local-dir {root}"
        )
    path = root / inside
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}: the folder does not exist")
    return _folder_if_whole(place_of(path))


def _in_repository(root: Path, inside: str, repository: str, published: PublishedSae | None) -> SaePlace:
    """The place of folder or file ``inside`` of a copy of a repository."""
    found = _folder_if_whole(place_of(root / inside))
    return replace(found, repository=repository, inside=inside, published=published)


def _folder_if_whole(place: SaePlace) -> SaePlace:
    """A file that a checkpoint of some format has in a folder of its own means that folder."""
    return replace(place, file=None) if place.file in files_on_hub("") else place


def _downloaded(repository: str, inside: str, revision: str | None, published: PublishedSae | None) -> Path:
    """A copy of a hub repository with the files of one SAE."""
    from huggingface_hub import snapshot_download

    patterns = files_on_hub(inside, None if published is None else published.loader)
    parent, _, name = inside.rpartition("/")
    if published is None and name in files_on_hub(""):
        patterns = files_on_hub(parent)
    try:
        root = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:
        raise FileNotFoundError(
            f"no checkpoint {repository!r}: there is no such folder, and the Hugging Face hub did not give it ({error})"
        ) from error
    if not any((root / pattern).is_file() for pattern in patterns):
        where = f"folder {inside!r}" if inside else "its top folder"
        raise FileNotFoundError(
            f"{repository} has no SAE checkpoint in {where}: set subfolder to the folder of one SAE, as the files of "
            "the repository are listed on the hub"
        )
    return root


def sae_files(sae: SaeReference) -> list[Path]:
    """The files that decide what an SAE computes, sorted by name."""
    return checkpoint_files(sae_place(sae))


def sae_facts(sae: SaeReference) -> dict[str, Any]:
    """What decides what an SAE computes and stands in no file of it (``checkpoint_facts``)."""
    return checkpoint_facts(sae_place(sae))


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


def read_sae(sae: ResolvedSae, device: torch.device | str = "cpu") -> SAEWeights:
    """Weights and architecture under the settings, on ``device``. Raises CheckpointError or FileNotFoundError."""
    return read_checkpoint(sae_place(sae.checkpoint), device=device, **encode_options(sae))


def read_sae_record(sae: SaeReference) -> SaeRecord:
    """What the checkpoint records about model, hook and text, and what the registry adds; reads no weights."""
    return read_checkpoint_record(sae_place(sae))
