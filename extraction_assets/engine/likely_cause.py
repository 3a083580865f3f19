"""Why an SAE explains too little: what would be different if its input were another one, tried on one batch."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from extraction_assets.engine.hooks import find_hook
from extraction_assets.engine.language_model import LanguageModel
from extraction_assets.engine.sae import SAE, VarianceExplained, matmul_precision
from extraction_assets.engine.sanity import encode_sample

_TOKENS = 512
"""Tokens that are enough to tell one cause from another."""
_CLEARLY = 0.2
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


class _Change(NamedTuple):
    """Another input for the SAE [n, T, D], and what its reconstruction is compared with."""

    inputs: Tensor
    target: Tensor


def likely_cause(
    sae: SAE,
    hook: str,
    outputs: Mapping[str, Tensor],
    counted: Tensor,
    minimum: float,
    *,
    hook_out: str | None = None,
    precision: str = "high",
) -> str:
    """One sentence on why ``sae`` explains too little of the output of ``hook``; of a transcoder, of ``hook_out``.

    ``outputs`` {hook: [n, T, D]} holds that of ``hook``, and of other places that it may belong to; ``counted`` bool
    [n, T]. The first samples are enough: at most ``enough_samples``.
    """
    with matmul_precision(precision):
        before = _explained(sae, _Change(outputs[hook].float(), outputs[hook_out or hook].float()), counted)
        attempts = [
            Attempt(kind, label, _explained(sae, change, counted))
            for kind, label, change in _changes(sae, hook, hook_out, outputs, counted)
        ]
    return _told([attempt for attempt in attempts if attempt.variance_explained > before], before, minimum)


def enough_samples(num_positions: int) -> int:
    """Samples whose tokens tell one cause from another."""
    return max(1, _TOKENS // num_positions)


def same_hook_elsewhere(model: LanguageModel, hook: str) -> list[str]:
    """The hooks that differ from ``hook`` in one number alone, such as those of all other layers, or of the other runs
    of its module."""
    found = []
    for match in _NUMBER.finditer(hook):
        of_run = match.start() > 0 and hook[match.start() - 1] == "["
        runs = model.num_runs(hook) or 0
        for number in range(runs) if of_run else itertools.count():
            name = f"{hook[: match.start()]}{number}{hook[match.end() :]}"
            if find_hook(model.module, name) is None:
                break
            if name != hook:
                found.append(name)
    return found


def _told(better: list[Attempt], before: float, minimum: float) -> str:
    best = max((attempt.variance_explained for attempt in better), default=before)
    if not (best >= minimum or best >= max(before, 0.0) + _CLEARLY):
        return _NOTHING.format(value=max(best, before))
    near = [attempt for attempt in better if attempt.variance_explained >= best - _SAME]
    kind = near[0].kind  # in the order in which they are tried
    labels = " or ".join([attempt.label for attempt in near if attempt.kind == kind][:3])
    value = max(attempt.variance_explained for attempt in near if attempt.kind == kind)
    return _SENTENCES[kind].format(labels=labels, value=value)


def _changes(
    sae: SAE, hook: str, hook_out: str | None, outputs: Mapping[str, Tensor], counted: Tensor
) -> Iterator[tuple[str, str, _Change]]:
    """Other inputs, the simplest change first. What a transcoder gives stays as it is.

    The normalizations are those of sae-lens 6: ``expected_average_only_in`` (all by one factor, so that the mean norm
    is sqrt(d_in)), ``constant_norm_rescale`` (every token to that norm), ``layer_norm`` (unbiased std, eps 1e-5). What
    is compared is what the SAE was given: a mean and a scale that are only put back explain nothing.
    """
    x = outputs[hook].float()

    def changed(own: Tensor) -> _Change:
        return _Change(own, own if hook_out is None else outputs[hook_out].float())

    if sae.d_in == sae.d_out:
        yield "b_dec", "apply_b_dec_to_input false", _Change(x + sae.b_dec, changed(x).target)
        yield "b_dec", "apply_b_dec_to_input true", _Change(x - sae.b_dec, changed(x).target)
    centered = x - x.mean(-1, keepdim=True)
    yield "centering", "", changed(centered)
    for other, output in outputs.items():
        if other not in (hook, hook_out) and output.shape[-1] == sae.d_in:
            yield "hook", repr(other), changed(output.float())
    root, norm = sae.d_in**0.5, x.norm(dim=-1, keepdim=True)
    average = float(norm.squeeze(-1)[counted].mean())
    if average > 0:
        yield "normalization", "expected_average_only_in", changed(x * (root / average))
    yield "normalization", "constant_norm_rescale", changed(x * (root / norm.clamp(min=1e-12)))
    yield "normalization", "layer_norm", changed(centered / (centered.std(-1, keepdim=True) + 1e-5))
    for power in range(-10, 11):
        if power:
            yield "scale", f"{2.0**power:.4g}", changed(x * 2.0**power)


def _explained(sae: SAE, change: _Change, counted: Tensor) -> float:
    """The fraction of variance explained after a change; minus infinity where there is none to explain."""
    explained = VarianceExplained()
    for x, target, own in zip(change.inputs, change.target, counted, strict=True):
        features, finite = encode_sample(sae, x, own)
        explained.add(sae.target(target), sae.decode(features, x[None])[0], own & finite)
    value = float(explained.value())
    return float("-inf") if math.isnan(value) else value
