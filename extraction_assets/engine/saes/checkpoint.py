"""From an SAE's settings to its checkpoint: its folder on this machine or the hub, its files, its weights."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from extraction_assets.engine.models.checkpoint import resolve_checkpoint
from extraction_assets.engine.models.language_model import load_tokenizer
from extraction_assets.engine.models.model_folder import model_configuration
from extraction_assets.engine.saes.formats import (
    CheckpointError,
    SaeRecord,
    SAEWeights,
    checkpoint_files,
    compare_recorded,
    known_files,
    read_checkpoint,
    read_checkpoint_record,
)
from extraction_assets.settings import ExtractionSettings, SaeReference, SaeSettings

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


def read_sae(sae: SaeSettings) -> SAEWeights:
    """Weights and architecture as the settings ask for. Raises CheckpointError or FileNotFoundError."""
    return read_checkpoint(sae_folder(sae.checkpoint), **encode_options(sae))


def read_sae_record(sae: SaeReference) -> SaeRecord:
    """What the checkpoint says of model, hook and text, and what is known of its repository; reads no weights."""
    record = read_checkpoint_record(sae_folder(sae))
    if sae.path not in CENTERED_REPOSITORIES:
        return record
    kwargs = {**record.model_from_pretrained_kwargs, "center_writing_weights": True}
    return replace(record, model_from_pretrained_kwargs=kwargs)


def with_recorded(settings: ExtractionSettings, model_folder: Path) -> ExtractionSettings:
    """The same settings with what the checkpoints record in place of what is not set: hooks, and whether the input is
    centered. ``model_folder`` is the language model's.

    Reads small files alone, and downloads an SAE of the hub. Raises CheckpointError where no hook is known.
    """
    saes = {name: _with_record(name, sae, model_folder) for name, sae in settings.saes.items()}
    return settings if saes == settings.saes else settings.model_copy(update={"saes": saes})


def _with_record(name: str, sae: SaeSettings, model_folder: Path) -> SaeSettings:
    record = read_sae_record(sae.checkpoint)
    hook, hook_out = sae.hook or record.hook, sae.hook_out or record.hook_out
    missing = "hook" if hook is None else "hook_out" if record.is_transcoder and hook_out is None else None
    if missing:
        what = "reads" if missing == "hook" else "gives the activations of"
        raise CheckpointError(
            f"SAE {name!r} ({sae.path}): the checkpoint does not say which hook it {what}: set saes.{name}.{missing}, "
            "such as blocks.8.hook_resid_pre or model.layers.12"
        )
    center = sae.center_input
    if center is None and (record.centered_input or record.centered_target):
        if has_rms_norm(model_folder):
            center = False
        elif record.centered_input:
            center = True
    return sae.model_copy(update={"hook": hook, "hook_out": hook_out, "center_input": center})


def check_recorded(settings: ExtractionSettings, names: Collection[str]) -> list[str]:
    """One sentence for each difference between what the SAEs ``names`` were trained on and what they run on
    (``compare_recorded``). Raises CheckpointError for one that gives wrong features."""
    differences = []
    for name in names:
        sae, model = settings.saes[name], settings.language_model.path
        record = read_sae_record(sae.checkpoint)
        bos = None if record.prepend_bos is None else _prepends_bos(settings)
        for finding in compare_recorded(record, model, bos, settings.corpus.max_length, sae.hook):
            if finding.severity == "error":
                raise CheckpointError(f"SAE {name!r} ({sae.path}): {finding.message}")
            differences.append(f"SAE {name!r}: {finding.message}")
    return differences


def _prepends_bos(settings: ExtractionSettings) -> bool:
    """Whether samples begin with a BOS token: as set, or by default where text is tokenized by one that has it."""
    corpus = settings.corpus
    if corpus.prepend_bos is not None or corpus.token_column is not None:
        return bool(corpus.prepend_bos)
    tokenizer = load_tokenizer(resolve_checkpoint(settings.language_model.checkpoint), corpus.tokenizer)
    return tokenizer.bos_token_id is not None


def has_rms_norm(model_folder: Path) -> bool:
    """Whether a model normalises by RMSNorm, by its configuration: there the mean of the residual stream matters, and
    TransformerLens leaves ``center_writing_weights`` out."""
    config = model_configuration(model_folder)
    text = config.get("text_config")
    return "rms_norm_eps" in config or (isinstance(text, dict) and "rms_norm_eps" in text)
