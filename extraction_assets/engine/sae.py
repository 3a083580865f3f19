"""A sparse autoencoder on a device: encode, decode, and how well it reconstructs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from extraction_assets.engine.sae_formats import SAEWeights, read_checkpoint
from extraction_assets.engine.shapes import SparseFeatures

_ALIGNMENT = 64
"""Bytes: torch's allocators begin every tensor at a multiple of this, and no kernel asks for more."""


class Encoded(NamedTuple):
    """Positive activations of some tokens, ordered by (token, feature)."""

    tokens: Tensor
    """int64 [Z]"""
    features: Tensor
    """int64 [Z]"""
    values: Tensor
    """float32 [Z]"""
    finite: Tensor
    """bool [N]: False for a token whose pre-activations hold a NaN or an infinity."""


def load_sae(path: str | Path, device: torch.device | str = "cpu") -> "SAE":
    """The SAE in checkpoint folder ``path``, ready to encode on ``device``.

    Raises CheckpointError where the checkpoint is missing, of no known format or unusable.
    """
    return SAE(read_checkpoint(Path(path)), device)


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """torch's float32 matmul precision (``highest``, ``high``, ``medium``) inside the block, the old one after."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class SAE:
    """An SAE's encoder and decoder with their parameters on one device, in float32."""

    def __init__(self, weights: SAEWeights, device: torch.device | str = "cpu") -> None:
        self.architecture = weights.architecture
        self.d_in, self.latent_dim, self.k = weights.d_in, weights.latent_dim, weights.k
        self.metadata = weights.metadata
        self._w_enc = weights.w_enc.to(device).contiguous()
        self._b_enc = weights.b_enc.to(device)
        self._w_dec = weights.w_dec.to(device).contiguous()
        self._b_dec = weights.b_dec.to(device)
        self._extra = {name: tensor.to(device) for name, tensor in weights.extra.items()}
        self._apply_b_dec_to_input = weights.apply_b_dec_to_input
        self._scale = None
        if weights.rescale_acts_by_decoder_norm:  # encode multiplies by the norms, so decode divides by them
            self._scale = self._w_dec.norm(dim=1)  # [F]
            self._w_dec = self._w_dec / self._scale[:, None]

    def encode(self, activations: Tensor) -> Tensor:
        """Hook output [N, d_in] of any float dtype -> features float32 [N, d_sae], on the same device.

        Formulas: standard relu(xW + b); jumprelu keeps pre-activations above the threshold; topk the k largest
        positive ones a token, ties to the lower feature; gated gates relu(xW e^r_mag + b_mag) by xW + b_gate > 0
        (sae-lens 6, Rajamanoharan et al. 2024, Gao et al. 2024).
        """
        if self.architecture == "topk":
            encoded = self.encode_sparse(activations, None)
            dense = torch.zeros(len(activations), self.latent_dim, device=activations.device)
            dense[encoded.tokens, encoded.features] = encoded.values
            return dense
        return self._dense(activations, None)[0]

    def encode_sparse(self, activations: Tensor, tile: int | None = None) -> Encoded:
        """As ``encode``, but the positive entries alone: hook output [N, d_in] -> Encoded.

        With ``tile``, of which N is a multiple, each matrix product takes ``tile`` tokens, so that a token's last
        bits do not depend on how many others are encoded with it. Two synchronisations (three for topk).
        Peak extra memory: the dense [N, d_sae] pre-activations and a bool each.
        """
        if self.architecture == "topk":
            pre = self._pre_activations(activations, tile)
            return _encode_top_k(pre, self.k, _finite_rows(pre))
        dense, finite = self._dense(activations, tile)
        tokens, features = (dense > 0).nonzero(as_tuple=True)
        return Encoded(tokens, features, dense[tokens, features], finite)

    def decode(self, features: SparseFeatures) -> Tensor:
        """Features of n samples -> reconstruction of the hook output, float32 [n, T, d_in]."""
        tokens = features.num_samples * features.num_positions
        rows = torch.nn.functional.pad(
            torch.cumsum(torch.bincount(features.tokens, minlength=tokens), 0), (1, 0)
        )  # [n * T + 1]
        summed = torch.nn.functional.embedding_bag(
            features.features,
            self._w_dec,
            rows,
            mode="sum",
            per_sample_weights=features.values,
            include_last_offset=True,
        )  # [n * T, D]
        return (summed + self._b_dec).view(features.num_samples, features.num_positions, self.d_in)

    def _product(self, activations: Tensor, bias: Tensor | None, tile: int | None) -> Tensor:
        """[N, D] -> xW (+ bias), float32 [N, F], one matrix product for every ``tile`` tokens."""
        x = activations.float()
        if self._apply_b_dec_to_input:
            x = x - self._b_dec
        tile = tile or max(1, len(x))
        if len(x) % tile:
            raise ValueError(f"{len(x)} tokens are not a whole number of tiles of {tile}")
        product = x.new_empty(len(x), self.latent_dim)
        # Some matrix kernels take another path, with other last bits, for a result that is not aligned in memory. Where
        # not every tile is, each gets a result of its own, which is.
        aligned = tile * self.latent_dim * product.element_size() % _ALIGNMENT == 0
        for start in range(0, len(x), tile):
            own = product[start : start + tile]
            result = own if aligned else torch.empty_like(own)
            if bias is None:
                torch.mm(x[start : start + tile], self._w_enc, out=result)
            else:
                torch.addmm(bias, x[start : start + tile], self._w_enc, out=result)
            if not aligned:
                own.copy_(result)
        return product

    def _pre_activations(self, activations: Tensor, tile: int | None) -> Tensor:
        """[N, D] -> xW + b, float32 [N, F]."""
        pre = self._product(activations, self._b_enc, tile)
        return pre if self._scale is None else pre.mul_(self._scale)

    def _dense(self, activations: Tensor, tile: int | None) -> tuple[Tensor, Tensor]:
        """Features [N, F] and whether each token's pre-activations are finite [N]."""
        if self.architecture == "gated":
            return self._gated(activations, tile)
        pre = self._pre_activations(activations, tile)
        finite = _finite_rows(pre)
        if self.architecture == "jumprelu":
            return torch.where(pre > self._extra["threshold"], pre, 0.0).relu_(), finite
        return pre.relu_(), finite

    def _gated(self, activations: Tensor, tile: int | None) -> tuple[Tensor, Tensor]:
        product = self._product(activations, None, tile)
        gate = product + self._b_enc  # [N, F]
        magnitude = product.mul_(self._extra["r_mag"].exp()).add_(self._extra["b_mag"])
        finite = _finite_rows(gate) & _finite_rows(magnitude)
        return torch.where(gate > 0, magnitude, 0.0).relu_(), finite


def _finite_rows(values: Tensor) -> Tensor:
    """Whether every number of a row is finite: [N, F] -> bool [N]. A row is summed, which carries any NaN or
    infinity along; only where a sum is not finite are the numbers themselves looked at."""
    finite = torch.isfinite(values.sum(dim=1))
    suspects = (~finite).nonzero().squeeze(1)
    if len(suspects):
        finite[suspects] = torch.isfinite(values[suspects]).all(dim=1)
    return finite


def _encode_top_k(pre: Tensor, k: int, finite: Tensor) -> Encoded:
    """The k largest positive pre-activations a token, ties to the lower feature: [N, F] -> Encoded.

    ``topk`` leaves open which of several equal values it returns. That matters only where the k-th and the
    (k+1)-th are equal and positive: such tokens are sorted stably instead.
    """
    values, features = pre.topk(min(k + 1, pre.shape[1]), dim=1)  # [N, k + 1], descending
    if values.shape[1] > k:
        tied = ((values[:, k - 1] == values[:, k]) & (values[:, k] > 0)).nonzero().squeeze(1)
        values, features = values[:, :k], features[:, :k]
        if len(tied):
            resolved = pre[tied].sort(dim=1, descending=True, stable=True)
            values[tied], features[tied] = resolved.values[:, :k], resolved.indices[:, :k]
    features, order = features.sort(dim=1)
    values = values.gather(1, order)
    tokens, slots = (values > 0).nonzero(as_tuple=True)
    return Encoded(tokens, features[tokens, slots], values[tokens, slots], finite)


def variance_explained(activations: Tensor, reconstruction: Tensor, counted: Tensor) -> float:
    """1 - sum |x - x'|^2 / sum |x - mean|^2 over the counted positions; 1 is perfect, 0 no better than the mean.

    ``activations`` and ``reconstruction`` [n, T, D], ``counted`` bool [n, T]; sums in float64. NaN where fewer
    than two positions count or they do not vary.
    """
    x = activations[counted].double()
    residual = (x - reconstruction[counted].double()).square().sum()
    total = (x - x.mean(dim=0)).square().sum()
    return float(1 - residual / total) if len(x) > 1 and float(total) > 0 else float("nan")
