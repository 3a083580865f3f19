"""The mismatches that can be found before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from extraction_assets.engine.corpora.tokenize import CorpusError
from extraction_assets.engine.findings import Finding, refuse
from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.language_model import (
    HookError,
    LanguageModel,
    context_length,
    probe_hooks,
    same_tensor,
)
from extraction_assets.engine.models.positions import fewer_positions
from extraction_assets.engine.saes.formats import CheckpointError, SAEWeights
from extraction_assets.engine.saes.located_checkpoint import read_sae
from extraction_assets.engine.saes.named import named_sae
from extraction_assets.engine.saes.published.described import width as width_in_name
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import Samples
from extraction_assets.settings import ResolvedSae

if TYPE_CHECKING:
    import torch


class Combination(NamedTuple):
    """A model and SAEs whose hooks exist and whose files can be read."""

    saes: dict[str, SAE]
    """By name, on their device."""
    widths: dict[str, int]
    """D of every hook."""
    findings: list[Finding]
    """The mismatches between them."""


def examine_combination(
    checkpoint: LocalCheckpoint,
    saes: Mapping[str, ResolvedSae],
    max_length: int,
    device: torch.device | str = "cpu",
) -> Combination:
    """What a model and SAEs are, and every mismatch between them.

    Reads the SAEs' weights to ``device``, one tensor after the other, and the model's configuration, not its weights.
    ``max_length`` is the length of a sample.
    Raises CheckpointError or HookError if there is nothing to compare: a checkpoint cannot be read, or the model does
    not have a hook.
    """
    findings = _length_findings(checkpoint, max_length)
    loaded = {name: SAE(read_sae(sae, device), device) for name, sae in saes.items()}
    widths = _widths(checkpoint, saes)
    for name, sae in saes.items():
        findings += _sae_findings(checkpoint, name, sae, loaded[name], widths)
    return Combination(loaded, widths, findings)


def _length_findings(checkpoint: LocalCheckpoint, max_length: int) -> list[Finding]:
    """An error if the model does not take samples of ``max_length`` positions."""
    context = context_length(checkpoint)
    if context is None or max_length <= context:
        fewer = fewer_positions(checkpoint, max_length)
        context = context if fewer is None else fewer
    if context is None or max_length <= context:
        return []
    takes = f"{checkpoint.folder} takes at most {context} positions"
    return [Finding("error", f"max_length is {max_length}, but {takes}: lower max_length", CorpusError)]


def _widths(checkpoint: LocalCheckpoint, saes: Mapping[str, ResolvedSae]) -> dict[str, int]:
    return probe_hooks(checkpoint, [hook for sae in saes.values() for hook in sae.hooks])


def _sae_findings(
    checkpoint: LocalCheckpoint, name: str, sae: ResolvedSae, found: SAE | SAEWeights, widths: Mapping[str, int]
) -> Iterator[Finding]:
    """Where an SAE does not fit its hooks, and where these are not those of its training."""
    if sae.hook_out is not None and not found.reconstructs:
        text = f"SAE {name!r} ({sae.checkpoint}) encodes only, and gives the activations of no hook: leave out "
        yield Finding("error", f"{text}saes.{name}.hook_out", CheckpointError)
        return
    out = sae.hook_out or sae.hook
    for what, key, width, hook in (("reads", "d_in", found.d_in, sae.hook), ("gives", "d_out", found.d_out, out)):
        if width != widths[hook]:
            text = (
                f"SAE {name!r} ({sae.checkpoint}) {what} activations of width {key} = {width}, but hook {hook!r} "
                f"of {checkpoint.folder} gives {widths[hook]}: they do not belong together"
            )
            yield Finding("error", text, CheckpointError)
            break
    for what, does, recorded, used in (
        ("on", "reads", found.record.hook, sae.hook),
        ("to give", "is compared with", found.record.hook_out, sae.hook_out),
    ):
        if recorded and used and not _same(checkpoint, recorded, used):
            yield Finding("warning", f"SAE {name!r}: it was trained {what} hook {recorded}, but {does} {used}")
    yield from _width_in_name(name, sae, found)


def _width_in_name(name: str, sae: ResolvedSae, found: SAE | SAEWeights) -> Iterator[Finding]:
    """A warning if a published SAE has by its name another number of features; names round it (16k)."""
    published = named_sae(sae.checkpoint)
    said = None if published is None else width_in_name(published)
    if published is not None and said is not None and not 0.8 < found.latent_dim / said < 1.25:
        text = f"{published.release}/{published.sae_id} has {said:,} features, its files have {found.latent_dim:,}"
        yield Finding("warning", f"SAE {name!r}: by its name {text}: are they those of another SAE?")


def _same(checkpoint: LocalCheckpoint, recorded: str, used: str) -> bool:
    """Whether both hooks name one tensor; True if the recorded one does not exist in this model."""
    if recorded == used:
        return True
    try:
        return same_tensor(checkpoint, recorded, used)
    except HookError:
        return True


def check_combination(checkpoint: LocalCheckpoint, saes: Mapping[str, ResolvedSae], max_length: int) -> None:
    """As ``examine_combination``, but keeps nothing, has one SAE in memory at a time, and raises the first mismatch:
    CheckpointError, HookError, CorpusError or UntrustedCodeError."""
    refuse(_length_findings(checkpoint, max_length))
    widths = _widths(checkpoint, saes)
    for name, sae in saes.items():
        refuse(list(_sae_findings(checkpoint, name, sae, read_sae(sae), widths)))


def examine_vocabulary(tokenizer: Any, rows: int | None, model_path: str) -> list[Finding]:
    """Whether a model with ``rows`` embeddings can read what a tokenizer makes; nothing if ``rows`` is not known.

    More rows than tokens are normal: vocabularies are padded. A tokenizer's added tokens may lie beyond them where text
    never makes them (Gemma 3 1B's image token): that is a warning, and ``refuse_unknown_tokens`` checks the samples.
    """
    if rows is None:
        return []
    vocabulary, added = tokenizer.get_vocab(), set(tokenizer.get_added_vocab())
    largest = max((number for token, number in vocabulary.items() if token not in added), default=-1)
    if largest >= rows:
        text = (
            f"the tokenizer of {model_path} makes token ids up to {largest}, but the model has embeddings of {rows} "
            f"tokens only, 0 to {rows - 1}: tokenizer and model do not belong together"
        )
        return [Finding("error", text, CorpusError)]
    beyond = sorted(token for token in added if vocabulary.get(token, -1) >= rows)
    if not beyond:
        return []
    text = (
        f"{len(beyond)} added tokens of the tokenizer of {model_path} ({', '.join(beyond[:3])}) have no embedding in "
        f"the model, which knows {rows} tokens: a text that holds one will be refused"
    )
    return [Finding("warning", text)]


def refuse_unknown_tokens(samples: Samples, model: LanguageModel) -> None:
    """Raises CorpusError if a token of the samples has no embedding: a GPU's kernel would end the process instead."""
    try:
        rows = int(model.module.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return  # a model without a table of embeddings reads ids in a way of its own
    wrong = samples.attention_mask & ((samples.token_ids >= rows) | (samples.token_ids < 0))
    if bool(wrong.any()):
        row, position = wrong.nonzero()[0].tolist()
        raise CorpusError(
            f"sample {samples.first_sample + row} has token id {int(samples.token_ids[row, position])} at position "
            f"{position}, but the model has embeddings of {rows} tokens only, 0 to {rows - 1}: the corpus was "
            "tokenized for another model"
        )


__all__ = [
    "CheckpointError",
    "Combination",
    "HookError",
    "check_combination",
    "examine_combination",
    "examine_vocabulary",
    "refuse_unknown_tokens",
]
