"""Readers of SAE checkpoints: one module a format, found by looking at the files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from extraction_assets.engine.saes.formats import (
    circuit_tracer,
    cross_layer,
    dictionary_learning,
    gemma_scope,
    gemma_scope_2,
    goodfire,
    kissane,
    llama_scope,
    llamascopium,
    qwen_scope,
    saelens,
    sparsify,
)
from extraction_assets.engine.saes.formats.shared.files import CheckpointError, require_files, sae_file
from extraction_assets.engine.saes.formats.shared.place import FormatFiles, SaePlace, place_of
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord, compare_recorded
from extraction_assets.engine.saes.formats.shared.weights import SAEWeights, folded_decoder_norm, scaled_input
from extraction_assets.engine.saes.published import PublishedSae

if TYPE_CHECKING:
    import torch

__all__ = [
    "FORMATS",
    "CheckpointError",
    "SAEWeights",
    "SaePlace",
    "SaeRecord",
    "checkpoint_facts",
    "checkpoint_files",
    "compare_recorded",
    "files_beside",
    "files_on_hub",
    "format_of_loader",
    "is_one_file",
    "is_whole",
    "place_of",
    "read_checkpoint",
    "read_checkpoint_record",
    "unreadable",
]


class Format(Protocol):
    """What a module of this folder has."""

    @property
    def WEIGHTS(self) -> str:
        """The file that messages about tensors name; of an SAE that is one file, a pattern of its name."""

    @property
    def LOADERS(self) -> tuple[str, ...]:
        """SAELens's functions whose SAEs it reads."""

    def files(self, file: str | None) -> FormatFiles:
        """The files of the SAE, for one that is a folder (None) or ``file`` among others; none if it cannot be."""

    def recognises(self, place: SaePlace) -> bool:
        """Whether the files are of this format, by their names and small files alone. Asked only where ``files`` of
        the place are some."""

    def facts(self, place: SaePlace) -> dict[str, Any]:
        """What decides what encode computes and stands in no file, but in names or in the registry; {} mostly."""

    def record(self, place: SaePlace) -> SaeRecord:
        """What is known of model, hook and text; reads no weights."""

    def read(self, place: SaePlace, device: torch.device | str) -> SAEWeights:
        """The weights on ``device``."""


FORMATS: dict[str, Format] = {
    "Gemma Scope": gemma_scope,
    "Gemma Scope 2": gemma_scope_2,
    "cross-layer transcoder": cross_layer,
    "dictionary_learning": dictionary_learning,
    "Llama Scope": llama_scope,
    "Llamascopium": llamascopium,
    "SAELens": saelens,
    "sparsify": sparsify,
    "Qwen Scope": qwen_scope,
    "Goodfire": goodfire,
    "circuit-tracer": circuit_tracer,
    "hook_z of ckkissane": kissane,
}

REFUSED_LOADERS = {
    "temporal": "its features depend on earlier positions, which one matrix product of a token cannot express",
}
"""SAELens's functions whose SAEs cannot be read, and why."""


def format_of_loader(loader: str) -> str | None:
    """The name of the format that SAELens reads by function ``loader``; None for ``REFUSED_LOADERS``."""
    return next((name for name, reader in FORMATS.items() if loader in reader.LOADERS), None)


def unreadable(loader: str) -> str | None:
    """Why SAEs that SAELens reads by function ``loader`` cannot be read; None if they can."""
    if format_of_loader(loader) is not None:
        return None
    return REFUSED_LOADERS.get(loader, f"its format, {loader}, is not known here")


def is_one_file(published: PublishedSae) -> bool:
    """Whether a published SAE is a file among those of other SAEs, not a folder of its own."""
    name = format_of_loader(published.loader)
    return name is not None and bool(FORMATS[name].files(PurePosixPath(published.path).name).required)


def read_checkpoint(
    place: SaePlace | Path,
    *,
    device: torch.device | str = "cpu",
    center_input: bool | None = None,
    fold_decoder_norm: bool = False,
    norm_scaling_factor: float | None = None,
) -> SAEWeights:
    """Weights and architecture of a checkpoint, on ``device`` in float32.

    ``center_input`` overrides what the checkpoint records (``SaeRecord.centered_input``); ``fold_decoder_norm`` gives
    decoder rows of norm 1; ``norm_scaling_factor`` is the factor of inputs that
    ``expected_average_only_in`` needs. Raises CheckpointError if the folder is missing, is of no known format, or
    holds unusable weights.
    """
    place = place if isinstance(place, SaePlace) else place_of(place)
    reader = _format_of(place)
    weights: SAEWeights = reader.read(place, device)
    if center_input is not None:
        target = weights.center_target and center_input if weights.is_transcoder else center_input
        weights = replace(weights, center_input=center_input, center_target=target)
    if weights.normalize_activations == "expected_average_only_in":
        scale = norm_scaling_factor or weights.norm_scaling_factor or place.published_scale
        weights = weights if scale is None else scaled_input(weights, scale)
    elif norm_scaling_factor is not None:
        raise CheckpointError(
            f"SAE {place}: norm_scaling_factor belongs to normalize_activations = 'expected_average_only_in', but this "
            f"checkpoint has {weights.normalize_activations!r}: leave it out"
        )
    weights.validate(place, place.file or reader.WEIGHTS)
    return folded_decoder_norm(place, weights) if fold_decoder_norm else weights


def checkpoint_facts(place: SaePlace) -> dict[str, Any]:
    """What decides what the SAE computes and stands in no file of it, but in names or in the registry; mostly empty.

    Part of an SAE's fingerprint. Reads small files alone.
    """
    return _format_of(place).facts(place)


def read_checkpoint_record(place: SaePlace | Path) -> SaeRecord:
    """What is known of a checkpoint's model, hook and text; reads no weights. Raises CheckpointError.

    The model is the registry's where the files name none.
    """
    place = place if isinstance(place, SaePlace) else place_of(place)
    found = _format_of(place).record(place)
    if found.model_name is None and place.published is not None:
        return replace(found, model_name=place.published.model)
    return found


def checkpoint_files(place: SaePlace | Path) -> list[Path]:
    """The files of a checkpoint that decide what the SAE computes, sorted by name."""
    place = place if isinstance(place, SaePlace) else place_of(place)
    required, optional = _format_of(place).files(place.file)
    there = [name for name in optional if (place.folder / name).is_file()]
    return sorted(place.folder / name for name in (*required, *there))


def files_beside(place: SaePlace) -> list[Path]:
    """The files there are of an SAE that is one file among others: itself and what formats have beside it, sorted by
    name. Looks at names alone."""
    found = {str(place.file)}
    for reader in FORMATS.values():
        found.update(*reader.files(place.file))
    return [place.folder / name for name in sorted(found) if (place.folder / name).is_file()]


def files_on_hub(inside: str, loader: str | None = None) -> list[str]:
    """Names in a repository of all files that the SAE at folder or file ``inside`` may have, each once: of the format
    that SAELens reads by ``loader``, or of every format."""
    layouts = _layouts(inside, loader)
    return list(dict.fromkeys(name for names in layouts for name in (*names.required, *names.optional)))


def is_whole(root: Path, inside: str, loader: str | None = None) -> bool:
    """Whether a copy of a repository has all files that some format requires of the SAE at ``inside``."""
    return any(
        names.required and all((root / name).is_file() for name in names.required) for names in _layouts(inside, loader)
    )


def _layouts(inside: str, loader: str | None) -> Iterator[FormatFiles]:
    """Names in a repository of the files that an SAE at folder or file ``inside`` has, format by format."""
    name = None if loader is None else format_of_loader(loader)
    parent, _, file = inside.rpartition("/")
    for reader in FORMATS.values() if name is None else [FORMATS[name]]:
        for folder, names in ((inside, reader.files(None)), (parent, reader.files(file))):
            yield FormatFiles(*(tuple(f"{folder}/{name}" if folder else name for name in part) for part in names))


def _format_of(place: SaePlace) -> Format:
    if not place.folder.is_dir():
        raise CheckpointError(f"no SAE checkpoint at {place}: the folder does not exist")
    if place.published is not None:
        return _format_of_published(place, place.published.loader)
    for reader in FORMATS.values():
        if reader.files(place.file).required and reader.recognises(place):
            return reader
    for reader in FORMATS.values():
        for name in (*reader.files(place.file).required, *reader.files(place.file).optional):
            if sae_file(place.folder, name).irregular():
                require_files(place.folder, name)
    _refuse_several(place)
    known = "; ".join(
        f"{name}: {' and '.join(reader.files(None).required or [reader.WEIGHTS])}" for name, reader in FORMATS.items()
    )
    raise CheckpointError(f"{place} is not an SAE checkpoint of a known format ({known})")


def _refuse_several(place: SaePlace) -> None:
    """Raises CheckpointError for a folder with SAEs that are one file each: one of them has to be named."""
    if place.file is not None:
        return
    found = [path.name for path in sorted(place.folder.iterdir()) if _is_one_file(path)]
    if found:
        named = ", ".join([*(repr(name) for name in found[:3]), *(["…"] if found[3:] else [])])
        raise CheckpointError(
            f"{place} holds {len(found)} SAE(s) of one file each ({named}): set subfolder to the file of one"
        )


def _is_one_file(path: Path) -> bool:
    needed = [reader.files(path.name).required for reader in FORMATS.values()]
    return any(names and all((path.parent / name).is_file() for name in names) for names in needed)


def _format_of_published(place: SaePlace, loader: str) -> Format:
    name = format_of_loader(loader)
    if name is None:
        why = unreadable(loader)
        raise CheckpointError(f"SAE {place}: this kind of SAE cannot be read: {why}")
    require_files(place.folder, *FORMATS[name].files(place.file).required)
    return FORMATS[name]
