"""An extraction with its checkpoints found, and with their records in place of settings that are not set."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction_assets.engine.corpora.chat_template import ChatTemplate
from extraction_assets.engine.findings import Finding
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, resolve_checkpoint
from extraction_assets.engine.models.files.model_folder import model_configuration
from extraction_assets.engine.models.tokenizers.tokenizer import load_tokenizer
from extraction_assets.engine.saes.formats import (
    CheckpointError,
    SaeRecord,
    compare_recorded,
    read_checkpoint_record,
)
from extraction_assets.engine.saes.located_checkpoint import read_sae_record, sae_place
from extraction_assets.settings import ExtractionSettings, ResolvedSae, SaeSettings


@dataclass(frozen=True)
class ResolvedExtraction:
    """An extraction with all hooks known. Made by ``resolve_extraction``."""

    declared: ExtractionSettings
    """The settings as given."""
    checkpoint: LocalCheckpoint
    """The language model's."""
    saes: Mapping[str, ResolvedSae]
    """By name, in the order of the settings."""

    @property
    def hooks(self) -> list[str]:
        """Hooks of all SAEs, each once, in their order."""
        return list(dict.fromkeys(hook for sae in self.saes.values() for hook in sae.hooks))

    def dump(self) -> dict[str, Any]:
        """The settings as results record them: as given, with what checkpoints say in place of what is not set, and for
        checkpoints of the hub the commit that was read."""
        dumped = self.declared.model_copy(update={"saes": dict(self.saes)}).model_dump(mode="json")
        if self.checkpoint.commit is not None:
            dumped["language_model"]["revision"] = self.checkpoint.commit
        return dumped


def resolve_extraction(settings: ExtractionSettings, checkpoint: LocalCheckpoint | None = None) -> ResolvedExtraction:
    """Finds the checkpoints of an extraction, and what the SAEs' say of hooks and of centered input.

    ``checkpoint`` is the language model's, if the caller has found it already. Reads small files alone; of the hub it
    downloads the language model and the SAEs. Raises FileNotFoundError for a
    checkpoint that is not there, and CheckpointError if no hook is known.
    """
    checkpoint = checkpoint or resolve_checkpoint(settings.language_model.checkpoint)
    saes = {name: resolve_sae(name, sae, checkpoint.folder) for name, sae in settings.saes.items()}
    return ResolvedExtraction(settings, checkpoint, saes)


def resolve_sae(name: str, sae: SaeSettings, model_folder: Path) -> ResolvedSae:
    """The settings of an SAE with what its checkpoint records in place of what is not set: hooks, and whether the input
    is centered. ``model_folder`` is the language model's. Raises CheckpointError if no hook is known."""
    place = sae_place(sae.checkpoint)
    record = read_checkpoint_record(place)
    hook, hook_out = sae.hook or record.hook, sae.hook_out or record.hook_out
    if hook is None or (record.is_transcoder and hook_out is None):
        field, what = ("hook", "reads") if hook is None else ("hook_out", "gives the activations of")
        raise CheckpointError(
            f"SAE {name!r} ({sae.checkpoint}): the checkpoint does not say which hook it {what}: set "
            f"saes.{name}.{field}, such as blocks.8.hook_resid_pre or model.layers.12"
        )
    found: dict[str, Any] = {
        "hook": hook,
        "hook_out": hook_out,
        "center_input": _center_input(sae, record, model_folder),
    }
    if place.commit is not None:
        found["revision"] = place.commit  # the branch may move meanwhile
    return ResolvedSae.model_validate({**sae.model_dump(), **found})


def _center_input(sae: SaeSettings, record: SaeRecord, model_folder: Path) -> bool | None:
    """``center_input`` as set, or as the checkpoint and the model say; None if neither does."""
    if sae.center_input is not None or not (record.centered_input or record.centered_target):
        return sae.center_input
    if has_rms_norm(model_folder):
        return False
    return True if record.centered_input else None


def examine_recorded(extraction: ResolvedExtraction, names: Collection[str]) -> list[Finding]:
    """Every difference between what the SAEs ``names`` were trained on and what they run on (``compare_recorded``);
    one that gives wrong features is an error, raised as CheckpointError."""
    findings, settings = list[Finding](), extraction.declared
    for name in names:
        sae = extraction.saes[name]
        record = read_sae_record(sae.checkpoint)
        bos = None if record.prepend_bos is None else _prepends_bos(extraction)
        model, length = settings.language_model.path, settings.corpus.max_length
        for severity, message, *_ in compare_recorded(record, model, bos, length, sae.hook):
            what = f"SAE {name!r} ({sae.checkpoint})" if severity == "error" else f"SAE {name!r}"
            findings.append(Finding(severity, f"{what}: {message}", CheckpointError))
    return findings


def _prepends_bos(extraction: ResolvedExtraction) -> bool:
    """Whether samples begin with a BOS token: as set, or by default where text is tokenized by one that has it; those
    of a chat also where its template writes one."""
    corpus = extraction.declared.corpus
    if corpus.messages_column is not None:
        tokenizer = load_tokenizer(extraction.checkpoint, corpus.tokenizer)
        prepended = tokenizer.bos_token_id is not None if corpus.prepend_bos is None else corpus.prepend_bos
        return prepended or ChatTemplate(tokenizer).writes_bos
    if corpus.prepend_bos is not None or corpus.token_column is not None:
        return bool(corpus.prepend_bos)
    return load_tokenizer(extraction.checkpoint, corpus.tokenizer).bos_token_id is not None


def has_rms_norm(model_folder: Path) -> bool:
    """Whether a model normalises by RMSNorm, by its configuration: there the mean of the residual stream matters, and
    TransformerLens leaves ``center_writing_weights`` out."""
    config = model_configuration(model_folder)
    text = config.get("text_config")
    return "rms_norm_eps" in config or (isinstance(text, dict) and "rms_norm_eps" in text)
