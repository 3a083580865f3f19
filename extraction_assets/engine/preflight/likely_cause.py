"""Why an SAE explains too little: tries other inputs for it on one batch."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from extraction_assets.engine.models.hooks.hook import HookError, find_hook
from extraction_assets.engine.models.language_model import LanguageModel, name_same_tensor
from extraction_assets.engine.preflight.sanity import encode_samples
from extraction_assets.engine.saes.sae import SAE, VarianceExplained, matmul_precision

_TOKENS = 512
"""Tokens that are enough to distinguish causes."""
_CLEARLY = 0.2
_MUCH_LESS = 0.75
"""The most that another hook may leave unexplained, as a share of what the chosen one does, to be named if the chosen
one explains enough."""
_SAME = 0.02
"""Differences of the variance explained: what makes a cause worth naming, and what leaves two of them open."""

_NUMBER = re.compile(r"(?<=\.)[0-9]+(?=\.|\[|$)|(?<=\[)[0-9]+(?=\])")
"""A number between the dots of a hook, or of a run."""

_SENTENCES = {
    "normalization": "With {labels} of its input it explains {value:.2f}: is normalize_activations missing in its "
    "configuration?",
    "centering": "With the mean over the width subtracted from its input it explains {value:.2f}: was it trained on a "
    "model with center_writing_weights?",
    "b_dec": "With {labels} it explains {value:.2f}: is that wrong in its configuration?",
    "hook": "At hook {labels} it explains {value:.2f}: is that where it belongs?",
    "scale": "With its input multiplied by {labels} it explains {value:.2f}: was it trained on scaled activations?",
}
_NOTHING = (
    "No other layer, normalization, scale, centering or handling of b_dec that was tried explains more than "
    "{value:.3g}: is it an SAE of this model?"
)


class Attempt(NamedTuple):
    """What an SAE would explain if something were different."""

    kind: str
    label: str
    variance_explained: float


class Tried(NamedTuple):
    """An SAE and what it is tried on: the first samples are enough, at most ``enough_samples``."""

    sae: SAE
    hook: str
    """What it reads."""
    hook_out: str | None
    """What it gives, of a transcoder."""
    outputs: Mapping[str, Tensor]
    """{hook: [n, T, D]}: that of ``hook``, and of other places that it may belong to."""
    counted: Tensor
    """bool [n, T]"""


class _Change(NamedTuple):
    """Another input for the SAE [n, T, D], and what its reconstruction is compared with."""

    inputs: Tensor
    target: Tensor


def likely_cause(tried: Tried, minimum: float, precision: str = "high") -> str:
    """One sentence on why an SAE explains less than ``minimum`` of what it was tried on."""
    with matmul_precision(precision):
        before = _explained(tried.sae, _unchanged(tried), tried.counted)
        attempts = [
            Attempt(kind, label, _explained(tried.sae, change, tried.counted))
            for kind, label, change in _changes(tried)
        ]
    return _sentence([attempt for attempt in attempts if attempt.variance_explained > before], before, minimum)


def better_hook(tried: Tried, precision: str = "high") -> str:
    """A note on another hook at which the SAE explains much more; empty if there is no such hook."""
    with matmul_precision(precision):
        before = _explained(tried.sae, _unchanged(tried), tried.counted)
        others = [
            Attempt(kind, label, _explained(tried.sae, change, tried.counted))
            for kind, label, change in _other_hooks(tried)
        ]
    best = max(others, key=lambda attempt: attempt.variance_explained, default=None)
    if best is None or best.variance_explained <= 0 or 1 - best.variance_explained > _MUCH_LESS * (1 - before):
        return ""
    return (
        f"explains {before:.3f} of the variance of some samples, but at hook {best.label} it explains "
        f"{best.variance_explained:.3f}: is that where it belongs?"
    )


def enough_samples(num_positions: int) -> int:
    """Samples with enough tokens to distinguish causes."""
    return max(1, _TOKENS // num_positions)


def is_where_recorded(model: LanguageModel | None, sae: SAE, hook: str) -> bool:
    """Whether the checkpoint says that ``sae`` reads the tensor that ``hook`` names; by the names alone without a
    model."""
    recorded = sae.record.hook
    if recorded is None or model is None:
        return recorded == hook
    try:
        return name_same_tensor(model.module, recorded, hook)
    except HookError:  # of another family of models
        return False


def same_hook_elsewhere(model: LanguageModel, hook: str, distance: int | None = None) -> list[str]:
    """The hooks that differ from ``hook`` in one number alone, such as those of all other layers, or of the other runs
    of its module; by at most ``distance``. Hooks behind weights that differ from the model's files are left
    out."""
    found = []
    for match in _NUMBER.finditer(hook):
        of_run = match.start() > 0 and hook[match.start() - 1] == "["
        runs = model.num_runs(hook) or 0
        for number in range(runs) if of_run else itertools.count():
            name = f"{hook[: match.start()]}{number}{hook[match.end() :]}"
            if find_hook(model.module, name) is None:
                break
            if name != hook and (distance is None or abs(number - int(match[0])) <= distance):
                found.append(name)
    return [name for name in found if _has_its_weights(model, name)]


def _has_its_weights(model: LanguageModel, hook: str) -> bool:
    if model.weights is None or model.weights.is_whole:
        return True
    with model.also_reading([hook]):
        use = model.weights_in_use()
    return not model.weights.problems(use)


def _sentence(better: list[Attempt], before: float, minimum: float) -> str:
    best = max((attempt.variance_explained for attempt in better), default=before)
    if not (best >= minimum or best >= max(before, 0.0) + _CLEARLY):
        return _NOTHING.format(value=max(best, before))
    near = [attempt for attempt in better if attempt.variance_explained >= best - _SAME]
    kind = near[0].kind  # in the order in which they are tried
    labels = " or ".join([attempt.label for attempt in near if attempt.kind == kind][:3])
    value = max(attempt.variance_explained for attempt in near if attempt.kind == kind)
    return _SENTENCES[kind].format(labels=labels, value=value)


def _changes(tried: Tried) -> Iterator[tuple[str, str, _Change]]:
    """Other inputs, the simplest change first. What a transcoder gives stays as it is.

    The normalizations are those of sae-lens 6: ``expected_average_only_in`` (all by one factor, so that the mean norm
    is sqrt(d_in)), ``constant_norm_rescale`` (every token to that norm), ``layer_norm`` (unbiased std, eps 1e-5). What
    is compared is what the SAE was given: a mean and a scale that are only put back explain nothing.
    """
    sae, (x, _) = tried.sae, _unchanged(tried)

    def changed(original: Tensor) -> _Change:
        return _replaced(tried, original)

    if sae.d_in == sae.d_out:
        yield "b_dec", "apply_b_dec_to_input false", _Change(x + sae.b_dec, changed(x).target)
        yield "b_dec", "apply_b_dec_to_input true", _Change(x - sae.b_dec, changed(x).target)
    centered = x - x.mean(-1, keepdim=True)
    yield "centering", "", changed(centered)
    yield from _other_hooks(tried)
    root, norm = sae.d_in**0.5, x.norm(dim=-1, keepdim=True)
    average = float(norm.squeeze(-1)[tried.counted].mean())
    if average > 0:
        yield "normalization", "expected_average_only_in", changed(x * (root / average))
    yield "normalization", "constant_norm_rescale", changed(x * (root / norm.clamp(min=1e-12)))
    yield "normalization", "layer_norm", changed(centered / (centered.std(-1, keepdim=True) + 1e-5))
    for power in range(-10, 11):
        if power:
            yield "scale", f"{2.0**power:.4g}", changed(x * 2.0**power)


def _other_hooks(tried: Tried) -> Iterator[tuple[str, str, _Change]]:
    """The outputs of other hooks that are as wide as what the SAE reads."""
    for other, output in tried.outputs.items():
        if other not in (tried.hook, tried.hook_out) and output.shape[-1] == tried.sae.d_in:
            yield "hook", repr(other), _replaced(tried, output.float())


def _unchanged(tried: Tried) -> _Change:
    return _replaced(tried, tried.outputs[tried.hook].float())


def _replaced(tried: Tried, inputs: Tensor) -> _Change:
    """Other inputs, compared with themselves, or with what a transcoder gives."""
    return _Change(inputs, inputs if tried.hook_out is None else tried.outputs[tried.hook_out].float())


def _explained(sae: SAE, change: _Change, counted: Tensor) -> float:
    """The fraction of variance explained after a change; minus infinity if there is no variance."""
    explained = VarianceExplained()
    features, finite = encode_samples(sae, change.inputs, counted)
    explained.add(sae.target(change.target), sae.decode(features, change.inputs), counted & finite)
    value = float(explained.value())
    return float("-inf") if math.isnan(value) else value
