"""Whether a sample gives the same outputs in a padded batch as alone: the guard against a forward pass that needs more
than token ids and a mask, or in which padding or neighbours have a part."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from extraction_assets.engine.findings import Finding
from extraction_assets.engine.memory import is_out_of_memory
from extraction_assets.engine.models.hooks.hook import HookError
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.shapes import Samples

BOUNDS = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.15}
"""The largest relative error, by dtype of the hook's output, between a sample alone and in a padded batch.

Another shape or attention kernel changes last bits, and each block carries them on. Measured on tiny models of 130
types on a CPU: at most 2e-6 in float32, 0.02 in bfloat16. On an H100 in random models of 24 to 48 blocks, 1,024 to
4,096 wide (Llama, Qwen 3, Mistral, Gemma 3, GPT-NeoX, GPT-2, BERT): at most 3e-5 in float32, 0.007 in float16, 0.056 in
bfloat16. What goes wrong otherwise, such as a convolution that reads padding or another direction of attention, errs by
0.1 to 2.
"""
_SAMPLES = 4
_PERCENTILE = 0.99
_ENOUGH_TOKENS = 8
"""From this length on, half of a sample's tokens are more than a single token that is routed otherwise."""
_FEW_NUMBERS = 1 << 22
_EXPERTS = re.compile(r"expert|moe", re.IGNORECASE)


class Agreement(NamedTuple):
    """How far a hook's output of one sample in a padded batch is from that of the sample alone."""

    hook: str
    row: int
    """Of the batch."""
    tokens: int
    """Tokens of the sample."""
    error: float
    """99th percentile over its tokens of the relative error."""
    median: float


def choose_rows(attention_mask: Tensor) -> list[int]:
    """Up to 4 rows of bool [n, T]: the shortest sample, the longest, and two between them by length."""
    lengths = attention_mask.sum(dim=1).cpu()
    order = [row for row in lengths.argsort(stable=True).tolist() if lengths[row] > 0]
    last = len(order) - 1
    places = dict.fromkeys(last * part // (_SAMPLES - 1) for part in range(_SAMPLES)) if order else {}
    return [order[place] for place in places]


def examine_alone(model: LanguageModel, samples: Samples, outputs: Mapping[str, Tensor]) -> list[Finding]:
    """Compares up to 4 samples of a padded batch with each of them alone and unpadded, through the model class's own
    mask: an error for the hooks that differ, a warning where a mixture of experts routes single tokens otherwise.

    ``outputs`` {hook: [n, T, D]} is what ``samples`` give in the batch. Runs at most 4 forward passes of one sample.
    """
    try:
        found = list(_agreements(model, samples, outputs))
    except HookError as error:
        return [Finding("error", f"one sample alone and without padding cannot be read: {error}", HookError)]
    except (ValueError, TypeError, IndexError, NotImplementedError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        text = f"no sample could be compared with itself alone and without padding: the model ends it with {first_line}"
        return [Finding("warning", text)]
    experts = has_experts(model.module)
    findings = []
    for hook, output in outputs.items():
        bound, of_hook = BOUNDS.get(output.dtype, BOUNDS[torch.float32]), [one for one in found if one.hook == hook]
        worst = max(of_hook, key=lambda one: one.error, default=None)
        if worst is None:
            text = f"hook {hook!r} gives zeros alone in the samples that were compared with themselves without padding"
            findings.append(Finding("warning", text))
        elif worst.error > bound:
            findings.append(_judged(model, samples, worst, bound, experts, of_hook))
    return findings


def relative_errors(ours: Tensor, alone: Tensor) -> Tensor:
    """The relative error of each token: [n, D] and [n, D] -> float64 [m] of the m tokens that are not zero in both.

    A dimension that is larger than most is measured in its own mean size, so that neither a token nor a dimension with
    an outlying norm hides the others. A NaN or an infinity on one side is an infinite error, on both none.
    """
    ours, alone = ours.double(), alone.double()
    finite = ours.isfinite() & alone.isfinite()
    broken = (ours.isfinite() != alone.isfinite()).any(dim=1)
    ours, alone = torch.where(finite, ours, 0), torch.where(finite, alone, 0)
    size = torch.maximum(ours.abs(), alone.abs())  # [n, D]
    typical = size.mean(dim=0)  # [D]
    common = typical[typical > 0].median() if bool((typical > 0).any()) else typical.new_tensor(1.0)
    weights = 1 / torch.maximum(typical, common)
    difference, length = ((ours - alone) * weights).norm(dim=1), (size * weights).norm(dim=1)
    errors = torch.where(broken, torch.inf, difference / length.clamp(min=torch.finfo(torch.float64).tiny))
    return errors[(length > 0) | broken]


def has_experts(module: nn.Module) -> bool:
    """Whether a model is a mixture of experts, by the names of its modules and their classes."""
    return any(_EXPERTS.search(name) or _EXPERTS.search(type(one).__name__) for name, one in module.named_modules())


def _agreements(model: LanguageModel, samples: Samples, outputs: Mapping[str, Tensor]) -> Iterator[Agreement]:
    for row in choose_rows(samples.attention_mask):
        length = int(samples.attention_mask[row].sum())
        alone = model.activations_alone(samples.token_ids[row, :length].to(model.device))
        for hook, output in outputs.items():
            errors = relative_errors(*_compared(output[row, :length], alone[hook][0, :length])).sort().values
            if len(errors):
                place = min(len(errors) - 1, int(_PERCENTILE * len(errors)))
                yield Agreement(hook, row, length, float(errors[place]), float(errors[(len(errors) - 1) // 2]))


def _compared(ours: Tensor, alone: Tensor) -> tuple[Tensor, Tensor]:
    """Both on one device: of a GPU's few numbers on the host, because a GPU loads a library for each operation first,
    which takes longer than all of them."""
    device = ours.device if ours.numel() > _FEW_NUMBERS else torch.device("cpu")
    return ours.to(device), alone.to(device)


def _judged(
    model: LanguageModel, samples: Samples, worst: Agreement, bound: float, experts: bool, found: list[Agreement]
) -> Finding:
    what = (
        f"hook {worst.hook!r} of {type(model.module).__name__} gives other numbers for sample "
        f"{samples.first_sample + worst.row} in a padded batch than for it alone: they differ by {worst.error:.2g} "
        f"relative to their size (99th percentile of {worst.tokens} tokens), at most {bound:g} is allowed in this dtype"
    )
    most = [one for one in found if one.tokens >= _ENOUGH_TOKENS and one.median > bound]
    if experts and not most:
        return Finding("warning", f"{what}; a mixture of experts may route single tokens to other experts")
    return Finding(
        "error",
        f"{what}; its forward pass needs more than token ids and a mask, or padding has a part in it: this hook "
        "cannot be used",
        HookError,
    )
