"""What a final norm does to a direction: measured on the module itself, with its weights."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from extraction_assets.engine.directions.stream import NotDefined

_ROWS, _SIZE = 8, 1e3
"""Rows that are tried, large enough for the epsilon of any norm to vanish beside them."""
_TOLERANCE = 1e-4


class FinalNorm(NamedTuple):
    """A norm as a linear map, up to the division by the size of what it reads: x -> gain * (x - mean(x)) or gain * x.

    This is what TransformerLens folds into the unembedding (``fold_ln``: the gain into W_U, the centring where it is a
    LayerNorm; arXiv:2309.08600 and Neuronpedia take the logit lens of W_dec @ W_U on such weights).
    """

    gain: Tensor
    """float32 [D]"""
    is_centred: bool
    """Whether the mean over D is subtracted: a LayerNorm."""
    rule: str
    """How the gain follows from what is stored: ``weight``, ``1 + weight`` (Gemma), or ``""`` without a gain."""
    has_bias: bool

    def apply(self, rows: Tensor) -> Tensor:
        """Directions float32 [n, D] -> float32 [n, D], on the device of ``rows``."""
        rows = rows - rows.mean(dim=1, keepdim=True) if self.is_centred else rows
        return rows * self.gain.to(rows.device)


def measure_norm(module: nn.Module, path: str, weights: Mapping[str, Tensor], width: int) -> FinalNorm:
    """What a norm does, by a few random rows through ``module`` (on the meta device) with ``weights`` {parameter:
    float32} on the CPU.

    Raises NotDefined for a module that is no LayerNorm or RMSNorm over all of the width.
    """
    filled = _filled(module, weights)
    rows = torch.randn(_ROWS, width, generator=torch.Generator().manual_seed(0)) * _SIZE
    try:
        with torch.inference_mode():
            at_zero = filled(torch.zeros_like(rows))
            given = filled(rows)
        linear = given - at_zero
    except Exception as error:  # of any module that is no norm
        raise NotDefined(_no_norm(module, path)) from error
    if isinstance(given, Tensor) and given.shape == rows.shape:
        for is_centred in (False, True):
            moved = rows - rows.mean(dim=1, keepdim=True) if is_centred else rows
            unit = moved / moved.square().mean(dim=1, keepdim=True).sqrt()
            for rule, gain in _gains(weights, width):
                if torch.allclose(unit * gain, linear, rtol=_TOLERANCE, atol=_TOLERANCE * float(linear.abs().max())):
                    return FinalNorm(gain, is_centred, rule, bool(at_zero.abs().max() > 0))
    raise NotDefined(_no_norm(module, path))


def _filled(module: nn.Module, weights: Mapping[str, Tensor]) -> Any:
    import copy

    filled = copy.deepcopy(module).to_empty(device="cpu").float()
    filled.load_state_dict(dict(weights), strict=False)
    return filled.eval()


def _gains(weights: Mapping[str, Tensor], width: int) -> list[tuple[str, Tensor]]:
    """The gains that a norm may have."""
    vectors = [(name, tensor) for name, tensor in weights.items() if tensor.shape == (width,)]
    stored = [gain for name, tensor in vectors for gain in ((name, tensor), (f"1 + {name}", 1 + tensor))]
    return [*stored, ("", torch.ones(width))]


def _no_norm(module: nn.Module, path: str) -> str:
    return f"the unembedding reads what {path} gives, which is a {type(module).__name__} and no LayerNorm or RMSNorm"
