"""From an SAE's settings to its checkpoint: its place on this machine or the hub, its files, its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from extraction_assets.engine import hub
from extraction_assets.engine.saes.formats import (
    SaePlace,
    SaeRecord,
    SAEWeights,
    checkpoint_facts,
    checkpoint_files,
    files_on_hub,
    is_one_file,
    is_whole,
    place_of,
    read_checkpoint,
    read_checkpoint_record,
)
from extraction_assets.engine.saes.named import is_local, named_sae, one_of_many, repository_in_name
from extraction_assets.engine.saes.published import PublishedSae, all_saes
from extraction_assets.engine.saes.published.described import hook as described_hook
from extraction_assets.engine.saes.published.hook_in_name import contradicts
from extraction_assets.settings import ResolvedSae, SaeReference, SaeSettings

if TYPE_CHECKING:
    import torch


def sae_place(sae: SaeReference) -> SaePlace:
    """Where an SAE's checkpoint lies; of a hub repository only its files are downloaded.

    Raises FileNotFoundError that says what was tried, UnknownSae for a name that SAELens does not have, and
    CheckpointError for a published SAE of a kind that cannot be read.
    """
    published = named_sae(sae)
    inside = published.path if published else _plain_path(sae.subfolder)
    if sae.path is not None and is_local(sae.path):
        root = Path(sae.path).expanduser()
        return _local_place(root, inside) if published is None else _copied_place(root, published)
    repository = sae.path or (published.repository if published else "")
    found = _downloaded(sae, repository, inside, published)
    repository = published.repository if published else repository
    return replace(_in_repository(found.folder, inside, repository, published), commit=found.commit)


def _plain_path(subfolder: str | None) -> str:
    """As the hub's addresses need it, which take ``a//b/`` for another file than ``a/b``; empty for the top folder."""
    return "/".join(PurePosixPath(subfolder or "").parts)


def _local_place(root: Path, inside: str) -> SaePlace:
    path = root / inside
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}: the folder does not exist")
    return _folder_if_whole(place_of(path))


def _copied_place(root: Path, published: PublishedSae) -> SaePlace:
    """The place of a published SAE in a copy: of its repository, of a folder of it, or of the SAE alone.

    Raises FileNotFoundError if it is not there, or the folder is by its name another SAE of the repository.
    """
    name, inside = f"{published.release}/{published.sae_id}", PurePosixPath(published.path).parts
    source = hub.HubSource(name, published.repository, include=_patterns(published.path, published))
    command = source.command.replace("FOLDER", str(root))
    if not root.exists():
        raise FileNotFoundError(f"path {root} of SAE {name} does not exist: correct it, or {command}")
    names = root.absolute().parts
    other = repository_in_name(root)
    if other not in (None, published.repository):
        raise FileNotFoundError(f"{root} is by its name a copy of {other}, and {name} is in {published.repository}")
    for begun in range(len(inside) + 1):  # how much of the way inside the repository ``root`` has behind it
        path = root.joinpath(*inside[begun:])
        if path.exists() and names[len(names) - begun :] == inside[:begun]:
            return _published_place(path, published)
    if (other := _path_in_name(names, published)) is not None:
        raise FileNotFoundError(f"{root} is by its name {other} of {published.repository}; {name} is {published.path}")
    if root.exists() and _holds_files(root, published):
        return _same_sae(_published_place(root, published), published)
    if root.is_file() and is_one_file(published):
        raise FileNotFoundError(
            f"{root} has another name than {name}, which is {inside[-1]} in {published.repository}: give it that name"
        )
    raise FileNotFoundError(f"{root} has no {published.path}, which is {name} in {published.repository}: {command}")


def _same_sae(place: SaePlace, published: PublishedSae) -> SaePlace:
    """The place of a folder whose name says nothing; FileNotFoundError if it is by its own files another SAE."""
    hook = read_checkpoint_record(place).hook
    if hook is not None and contradicts(published, hook):
        raise FileNotFoundError(
            f"{place} is another SAE than {published.release}/{published.sae_id}: its files say that it reads {hook}, "
            f"and that one reads {described_hook(published)}: correct release and sae_id, or path"
        )
    return place


def _path_in_name(names: tuple[str, ...], published: PublishedSae) -> str | None:
    """The path of another SAE of the repository that a folder's name ends with."""
    paths = [one.path for one in all_saes() if one.repository == published.repository and one.path != published.path]
    return next((path for path in paths if names[-len(parts := PurePosixPath(path).parts) :] == parts), None)


def _holds_files(root: Path, published: PublishedSae) -> bool:
    """Whether a folder, or a file where the SAE is one, has by itself what its format needs; of a file also the name,
    which decides what lies beside it, and the layer."""
    place = _folder_if_whole(place_of(root))
    if place.file is not None or is_one_file(published):
        return is_one_file(published) and place.file == PurePosixPath(published.path).name
    return any((place.folder / one).is_file() for one in files_on_hub("", published.loader))


def _published_place(path: Path, published: PublishedSae) -> SaePlace:
    found = _folder_if_whole(place_of(path))
    return replace(found, repository=published.repository, inside=published.path, published=published)


def _in_repository(root: Path, inside: str, repository: str, published: PublishedSae | None) -> SaePlace:
    """The place of folder or file ``inside`` of a copy of a repository."""
    found = _folder_if_whole(place_of(root / inside))
    return replace(found, repository=repository, inside=inside, published=published)


def _folder_if_whole(place: SaePlace) -> SaePlace:
    """A file that a checkpoint of some format has in a folder of its own means that folder."""
    return replace(place, file=None) if place.file in files_on_hub("") else place


def _patterns(inside: str, published: PublishedSae | None) -> tuple[str, ...]:
    """What ``hf download --include`` takes for the SAE at folder or file ``inside`` of a repository."""
    if published is None:
        return (f"{inside}*",) if inside else ()
    return tuple(files_on_hub(inside, published.loader)) if is_one_file(published) else (f"{inside}/*",)


def _downloaded(sae: SaeReference, repository: str, inside: str, published: PublishedSae | None) -> hub.Snapshot:
    """A copy of a hub repository with the files of one SAE, and its commit."""
    loader = None if published is None else published.loader
    parent, _, name = inside.rpartition("/")
    where = parent if published is None and name in files_on_hub("") else inside
    what = f"SAE {sae}:" if sae.path is None else f"no checkpoint {sae.path!r}: there is no such folder, and"
    source = hub.HubSource(what, repository, sae.revision, _patterns(where, published))
    try:
        found = hub.download_files(source, files_on_hub(where, loader))
    except hub.HubError:
        _refuse_many(repository, inside, published)
        raise
    if is_whole(found.folder, where, loader):
        return found
    _refuse_many(repository, inside, published)
    if found.refused is not None:
        raise found.refused
    named = f"folder {inside!r}" if inside else "its top folder"
    if any((found.folder / name).is_file() for name in files_on_hub(where, loader)):
        return found  # a damaged one, which its reader describes
    raise FileNotFoundError(
        f"{repository} has no SAE checkpoint in {named}: set subfolder to the folder of one SAE, as the files of "
        "the repository are listed on the hub"
    )


def _refuse_many(repository: str, inside: str, published: PublishedSae | None) -> None:
    """Raises FileNotFoundError if the registry has SAEs below a folder of a repository that is not an SAE itself."""
    example = None if published is not None else one_of_many(repository, inside)
    if example is not None:
        below = f" below {inside}" if inside else ""
        raise FileNotFoundError(
            f"{repository} holds many SAEs{below}: `extraction-assets saes {repository}` "
            f"lists them; name one by release and sae_id in place of path, such as {example.release} and "
            f"{example.sae_id}, or set subfolder, such as {example.path}"
        )


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
