"""From the product of tokens and encoder to the features that fire: activation function and compaction."""

import functools
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_BLOCK_ENTRIES = 1 << 23
"""Numbers of a product that are processed together on a CPU: 32 MiB. In smaller blocks threads wait for each other more
often than the cache saves."""


class Firings(NamedTuple):
    """Positive activations of some tokens, ordered by (token, feature)."""

    tokens: Tensor
    """int64 [Z]"""
    features: Tensor
    """int64 [Z]"""
    values: Tensor
    """float32 [Z]"""
    finite: Tensor
    """bool [N]: False for a token whose pre-activations hold a NaN or an infinity."""


class Magnitude(NamedTuple):
    """A gated SAE's second path: ``product * scale + bias`` where the gate is open."""

    scale: Tensor
    """float32 [F]"""
    bias: Tensor
    """float32 [F]"""


class ActivationFunction(NamedTuple):
    """How the product xW of a token becomes features: fires where (xW + bias) * scale > limit, with that value."""

    bias: Tensor
    """float32 [F]"""
    scale: Tensor | None = None
    """float32 [F]; None is 1."""
    limit: Tensor | None = None
    """float32 [F], none negative; None is 0."""
    magnitude: Magnitude | None = None
    """Of a gated SAE: what stands above is its gate, this the value."""


def firings_of(product: Tensor, wanted: Tensor, activation: ActivationFunction) -> Firings:
    """The firings of the wanted tokens: product float32 [N, F] (overwritten), wanted bool [N].

    On a CPU it goes over the product in blocks. One
    synchronisation on a GPU, two where not all tokens are wanted. Peak extra memory: one bool for each entry, of a
    block on a CPU; for a gated SAE one float32 more.
    """
    rows = max(1, _BLOCK_ENTRIES // product.shape[1]) if product.device.type == "cpu" else max(1, len(product))
    blocks = [slice(start, start + rows) for start in range(0, max(1, len(product)), rows)]
    return concatenate_firings([_firings_of(product[block], wanted[block], activation) for block in blocks])


def _firings_of(product: Tensor, wanted: Tensor, activation: ActivationFunction) -> Firings:
    gate = None
    if activation.magnitude is not None:
        gate = product + activation.bias
        values = product.mul_(activation.magnitude.scale).add_(activation.magnitude.bias)
        fires = compare(np.greater, gate, 0.0) & compare(np.greater, values, 0.0)
    else:
        values = pre_activations(product, activation)
        fires = compare(np.greater, values, 0.0 if activation.limit is None else activation.limit)
    finite = finite_rows(values) if gate is None else finite_rows(values) & finite_rows(gate)
    tokens, features = true_entries(fires)
    kept = wanted[tokens].nonzero().squeeze(1)  # few fire: cheaper than a mask over all
    if len(kept) < len(tokens):
        tokens, features = tokens[kept], features[kept]
    return Firings(tokens, features, values[tokens, features], finite | ~wanted)


def pre_activations(product: Tensor, activation: ActivationFunction) -> Tensor:
    """(product + bias) * scale, in place: [N, F]."""
    product.add_(activation.bias)
    return product if activation.scale is None else product.mul_(activation.scale)


def concatenate_firings(parts: list[Firings]) -> Firings:
    """Firings of consecutive groups of tokens as one."""
    if len(parts) == 1:
        return parts[0]
    first, tokens = 0, []
    for part in parts:
        tokens.append(part.tokens + first)
        first += len(part.finite)
    rest = (torch.cat([part[column] for part in parts]) for column in range(1, 4))
    return Firings(torch.cat(tokens), *rest)


def finite_rows(values: Tensor) -> Tensor:
    """Whether every number of a row is finite: [N, F] -> bool [N]. No synchronisation on a GPU.

    On a CPU a row is summed, which carries any NaN or infinity along; only where a sum is not finite are the numbers
    themselves looked at.
    """
    if values.device.type != "cpu":
        return torch.isfinite(values).all(dim=1)
    finite = torch.isfinite(values.sum(dim=1))
    suspects = (~finite).nonzero().squeeze(1)
    if len(suspects):
        finite[suspects] = torch.isfinite(values[suspects]).all(dim=1)
    return finite


@functools.cache
def has_triton() -> bool:
    """Whether the kernels can be used on CUDA."""
    return importlib.util.find_spec("triton") is not None


def compare(comparison: np.ufunc, values: Tensor, limit: Tensor | float) -> Tensor:
    """``comparison`` of values with limits as broadcast: bool, on the device of the values."""
    if values.device.type != "cpu":
        operation: Callable[..., Tensor] = getattr(torch, comparison.__name__)
        return operation(values, limit)
    other = limit.numpy() if isinstance(limit, Tensor) else np.float32(limit)
    return torch.from_numpy(comparison(values.numpy(), other))  # several times faster than torch's


def true_entries(fires: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of what is true, in order: bool [N, F] -> int64 [Z] twice."""
    if fires.device.type != "cpu":
        rows, columns = fires.nonzero(as_tuple=True)
        return rows, columns
    flat = torch.from_numpy(np.flatnonzero(fires.numpy()))  # several times faster than torch's on sparse rows
    rows = flat // fires.shape[1]
    return rows, flat - rows * fires.shape[1]
