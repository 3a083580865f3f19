"""What a checkpoint says about the model, the hook and the text that it was trained on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from extraction_assets.engine.findings import Finding
from extraction_assets.engine.saes.model_names import plain_model_name

_WRITES_RESIDUAL = re.compile(r"blocks\.\d+\.hook_(resid_(pre|mid|post)|mlp_out|attn_out)|hook_(pos_)?embed")

# These change what from_pretrained gives to a hook of the residual stream or beside it in no way.
_HARMLESS = {
    "center_unembed",
    "center_writing_weights",
    "default_padding_side",
    "device",
    "device_map",
    "dtype",
    "fold_ln",
    "fold_value_biases",
    "local_files_only",
    "move_to_device",
    "n_devices",
    "refactor_factored_attn_matrices",
    "torch_dtype",
    "trust_remote_code",
}

_MOVED = (
    ("fold_value_biases", re.compile(r"hook_z"), "moves the value biases behind that hook"),
    ("refactor_factored_attn_matrices", re.compile(r"hook_z"), "changes the values that are summed there"),
    ("fold_ln", re.compile(r"hook_normalized|mlp\.hook_in"), "moves the norm's gain and bias behind that hook"),
)
"""Options of ``HookedTransformer.from_pretrained`` that change what stands at some hooks."""


@dataclass(frozen=True)
class SaeRecord:
    """What a checkpoint records; None if it does not say."""

    hook: str | None = None
    """What the SAE reads: a TransformerLens name or a dotted path."""
    hook_out: str | None = None
    """What a transcoder gives."""
    is_transcoder: bool = False
    model_name: str | None = None
    prepend_bos: bool | None = None
    context_size: int | None = None
    """Positions of a training sample."""
    dataset_path: str | None = None
    model_from_pretrained_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """How TransformerLens's ``HookedTransformer.from_pretrained_no_processing`` was to load the model."""

    @property
    def centers_writing_weights(self) -> bool:
        return self.model_from_pretrained_kwargs.get("center_writing_weights") is True

    @property
    def centered_input(self) -> bool:
        """Whether the SAE reads activations without their mean over D.

        TransformerLens's ``center_writing_weights`` subtracts from everything that writes into the residual stream
        its mean over the width, and so from the stream itself. Models with RMSNorm it leaves as they are.
        """
        return self.centers_writing_weights and writes_residual(self.hook)

    @property
    def centered_target(self) -> bool:
        """Whether reconstructions are of activations without their mean over D."""
        return self.centers_writing_weights and writes_residual(self.hook_out or self.hook)


def writes_residual(hook: str | None) -> bool:
    """Whether a TransformerLens hook is the residual stream or what a layer adds to it."""
    return hook is not None and _WRITES_RESIDUAL.fullmatch(hook) is not None


def compare_recorded(
    record: SaeRecord,
    model_name: str,
    prepend_bos: bool | None,
    max_length: int,
    hook: str | None = None,
) -> list[Finding]:
    """Differences between the inputs of an SAE and those of its training. Unrecorded values are not compared.

    ``model_name`` is a hub id or a folder, ``prepend_bos`` what the corpus does (None: wherever the tokenizer has a
    BOS token), ``max_length`` the positions of a sample. All findings are warnings: names vary, and an SAE may be
    run on other text on purpose; only what would read another tensor than the one recorded is an error.
    """
    found = [
        _model(record, model_name),
        _bos(record, prepend_bos),
        _context(record, max_length),
        *_kwargs(record, hook),
    ]
    return [finding for finding in found if finding is not None]


def _model(record: SaeRecord, model_name: str) -> Finding | None:
    if record.model_name is None or plain_model_name(record.model_name) == plain_model_name(model_name):
        return None
    return Finding("warning", f"it was trained on model {record.model_name}, but runs on {model_name}")


def _bos(record: SaeRecord, prepend_bos: bool | None) -> Finding | None:
    if record.prepend_bos is None or record.prepend_bos is (True if prepend_bos is None else prepend_bos):
        return None
    trained = "with" if record.prepend_bos else "without"
    wanted = str(record.prepend_bos).lower()
    return Finding(
        "warning",
        f"it was trained on samples {trained} a BOS token first: set corpus.prepend_bos: {wanted} to match",
    )


def _context(record: SaeRecord, max_length: int) -> Finding | None:
    if record.context_size is None or max_length <= record.context_size:
        return None
    return Finding(
        "warning",
        f"it was trained on samples of {record.context_size} positions; corpus.max_length is {max_length}, and later "
        "positions it has never seen",
    )


def _kwargs(record: SaeRecord, hook: str | None) -> list[Finding | None]:
    kwargs = record.model_from_pretrained_kwargs
    found: list[Finding | None] = []
    for name, hooks, what in _MOVED:
        place = record.hook or hook or ""
        if kwargs.get(name) is True and hooks.search(place):
            text = f"it was trained on {place} of a model loaded with {name}, which {what}: this is not supported"
            found.append(Finding("error", text))
    unknown = {name: value for name, value in kwargs.items() if name not in _HARMLESS}
    if unknown:
        options = ", ".join(f"{name} = {value!r}" for name, value in sorted(unknown.items()))
        found.append(Finding("warning", f"its model was loaded with {options}, which has no effect here"))
    return found
