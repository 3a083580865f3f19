"""Readers of SAE checkpoints: one module a format, found by looking at the files."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from extraction_assets.engine.saes.formats import dictionary_learning, gemma_scope, saelens, sparsify
from extraction_assets.engine.saes.formats.files import CheckpointError, require_files, sae_file
from extraction_assets.engine.saes.formats.recorded import SaeRecord, compare_recorded
from extraction_assets.engine.saes.formats.weights import SAEWeights, folded_decoder_norm, scaled_input

__all__ = [
    "CheckpointError",
    "SAEWeights",
    "SaeRecord",
    "checkpoint_files",
    "compare_recorded",
    "known_files",
    "read_checkpoint",
    "read_checkpoint_record",
]

FORMATS: dict[str, ModuleType] = {
    "Gemma Scope": gemma_scope,
    "dictionary_learning": dictionary_learning,
    "SAELens": saelens,
    "sparsify": sparsify,
}


def read_checkpoint(
    path: Path,
    *,
    center_input: bool | None = None,
    fold_decoder_norm: bool = False,
    norm_scaling_factor: float | None = None,
) -> SAEWeights:
    """Weights and architecture of the checkpoint in folder ``path``, on the CPU in float32.

    ``center_input`` overrides what the checkpoint records (``SaeRecord.centered_input``); ``fold_decoder_norm`` gives
    decoder rows of norm 1; ``norm_scaling_factor`` is the factor of inputs that
    ``expected_average_only_in`` needs. Raises CheckpointError if the folder is missing, is of no known format, or
    holds unusable weights.
    """
    reader = _format_of(path)
    weights: SAEWeights = reader.read(path)
    if center_input is not None:
        target = weights.center_target and center_input if weights.is_transcoder else center_input
        weights = replace(weights, center_input=center_input, center_target=target)
    if weights.normalize_activations == "expected_average_only_in":
        scale = weights.norm_scaling_factor if norm_scaling_factor is None else norm_scaling_factor
        weights = weights if scale is None else scaled_input(weights, scale)
    elif norm_scaling_factor is not None:
        raise CheckpointError(
            f"SAE {path}: norm_scaling_factor belongs to normalize_activations = 'expected_average_only_in', but this "
            f"checkpoint has {weights.normalize_activations!r}: leave it out"
        )
    weights.validate(path, reader.WEIGHTS)
    return folded_decoder_norm(path, weights) if fold_decoder_norm else weights


def read_checkpoint_record(path: Path) -> SaeRecord:
    """The checkpoint's record of model, hook and text in folder ``path``; reads no weights. Raises CheckpointError."""
    record: SaeRecord = _format_of(path).record(path)
    return record


def checkpoint_files(path: Path) -> list[Path]:
    """The files of the checkpoint in folder ``path`` that decide what the SAE computes, sorted by name."""
    reader = _format_of(path)
    optional = [name for name in reader.OPTIONAL_FILES if (path / name).is_file()]
    return sorted(path / name for name in (*reader.FILES, *optional))


def known_files() -> list[str]:
    """Names of all files that a checkpoint of any format may have, each once."""
    return sorted({name for reader in FORMATS.values() for name in (*reader.FILES, *reader.OPTIONAL_FILES)})


def _format_of(path: Path) -> ModuleType:
    if not path.is_dir():
        raise CheckpointError(f"no SAE checkpoint at {path}: the folder does not exist")
    for reader in FORMATS.values():
        if reader.recognises(path):
            return reader
    for name in known_files():
        if sae_file(path, name).irregular():
            require_files(path, name)
    known = "; ".join(f"{name}: {' and '.join(reader.FILES)}" for name, reader in FORMATS.items())
    raise CheckpointError(f"{path} is not an SAE checkpoint of a known format ({known})")
