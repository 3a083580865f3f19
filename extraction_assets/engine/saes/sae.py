"""A sparse autoencoder on a device: encode, decode, and how well it reconstructs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from extraction_assets.engine.ordering import starts_of
from extraction_assets.engine.saes.activation import (
    ActivationFunction,
    Firings,
    Magnitude,
    concatenate_firings,
    firings_of,
    has_triton,
)
from extraction_assets.engine.saes.formats import SAEWeights, read_checkpoint
from extraction_assets.engine.saes.input import SaeInput, centered
from extraction_assets.engine.saes.kernel_encoder import KernelEncoder
from extraction_assets.engine.saes.products import products
from extraction_assets.engine.saes.top_k import top_k_firings_of
from extraction_assets.engine.shapes import SparseFeatures


def load_sae(path: str | Path, device: torch.device | str = "cpu") -> "SAE":
    """The SAE in checkpoint folder ``path``, ready to encode on ``device``.

    Raises CheckpointError if the checkpoint is missing, of no known format or unusable.
    """
    return SAE(read_checkpoint(Path(path), device=device), device)


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """torch's float32 matmul precision (``highest``, ``high``, ``medium``) inside the block, the old one after."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def decoder_rows(weights: SAEWeights, device: torch.device | str = "cpu") -> tuple[Tensor | None, Tensor | None]:
    """What each feature adds for every unit of its activation, float32 [F, d_out], and where encode multiplies by the
    norms of the stored rows, these [F]: decode divides by them."""
    if weights.w_dec is None:
        return None, None
    rows = weights.w_dec.to(device).contiguous()
    if not weights.rescale_acts_by_decoder_norm:
        return rows, None
    scale = rows.norm(dim=1)  # [F]
    return rows / scale.clamp(min=torch.finfo(scale.dtype).tiny)[:, None], scale


class SAE:
    """An SAE's encoder and decoder, if it has one, with their parameters on one device, in float32."""

    def __init__(self, weights: SAEWeights, device: torch.device | str = "cpu") -> None:
        self.architecture, self.record = weights.architecture, weights.record
        self.d_in, self.d_out, self.latent_dim, self.k = weights.d_in, weights.d_out, weights.latent_dim, weights.k
        self._w_enc = _by_column(weights.w_enc.to(device))
        self._w_dec, scale = decoder_rows(weights, device)
        self.b_dec = weights.b_dec.to(device)
        self._w_skip = None if weights.w_skip is None else weights.w_skip.to(device)
        self._input, self._center_target, self._tanh = SaeInput(weights, device), weights.center_target, weights.tanh
        self._selection_scale: Tensor | None = None
        if weights.selects_by_decoder_norm and self._w_dec is not None:
            # encode multiplies by the norms, and divides what fires by them
            scale = self._selection_scale = self._w_dec.norm(dim=1)  # [F]
        extra = {name: tensor.to(device) for name, tensor in weights.extra.items()}
        self._activation = ActivationFunction(
            bias=weights.b_enc.to(device).contiguous(),
            scale=scale,
            limit=extra["threshold"].clamp(min=0).contiguous() if self.architecture == "jumprelu" else None,
            magnitude=Magnitude(extra["r_mag"].exp(), extra["b_mag"]) if self.architecture == "gated" else None,
        )
        self._kernels = KernelEncoder(self._w_enc, self._activation)

    @property
    def reconstructs(self) -> bool:
        """Whether it has a decoder of its own."""
        return self._w_dec is not None

    @property
    def decoder(self) -> Tensor | None:
        """float32 [F, d_out]: what each feature adds to a reconstruction for every unit of its activation, before an
        input normalisation is undone; None of an SAE that encodes only."""
        return self._w_dec

    @property
    def encoder(self) -> Tensor:
        """float32 [d_in, F]: what each feature reads, by column, of the input as ``SaeInput`` prepares it."""
        return self._w_enc

    @property
    def restores_input(self) -> bool:
        """Whether decode gives what the decoder adds up in the scale of each token's activations."""
        return self._input.is_restored

    def encode(self, activations: Tensor) -> Tensor:
        """Hook output [N, d_in] of any float dtype -> features float32 [N, d_sae], on the same device.

        Formulas: standard relu(xW + b); jumprelu keeps pre-activations above the threshold; topk the k largest
        positive ones a token, ties to the lower feature; gated gates relu(xW e^r_mag + b_mag) by xW + b_gate > 0
        (sae-lens 6, Rajamanoharan et al. 2024, Gao et al. 2024). x is the hook output as ``SaeInput`` prepares it.
        """
        firings = self.encode_sparse(activations)
        dense = torch.zeros(len(activations), self.latent_dim, device=activations.device)
        dense[firings.tokens, firings.features] = firings.values
        return dense

    def encode_sparse(self, activations: Tensor, tile: int | None = None, wanted: Tensor | None = None) -> Firings:
        """As ``encode``, but the positive entries alone: hook output [N, d_in] -> Firings.

        With ``tile``, of which N is a multiple, each matrix product takes ``tile`` tokens, so that a token's last
        bits do not depend on how many others are encoded with it. Tokens that are not ``wanted`` (bool [N]) have no
        firings and may hold anything. Only one dense tile [tile, d_sae] exists at a time, on a GPU a few or a part of
        one, which are read once (topk: some of it twice). Synchronisations on a GPU: one for all tiles. Peak extra
        memory on a CPU: the tile with a bool each of some rows (gated: twice); on a GPU up to 512 MiB of whole tiles,
        or of a larger tile 128 MiB or 2,048 features, and room for firings: a sixteenth of the dense features of all
        N tokens, or more where they are many; topk: of 64 MiB or what is read at once, and 8 k bytes a token.
        """
        tile = tile or max(1, len(activations))
        if len(activations) % tile:
            raise ValueError(f"{len(activations)} tokens are not a whole number of tiles of {tile}")
        x = self._input.prepare(activations, tile)
        if wanted is None:
            wanted = torch.ones(len(x), dtype=torch.bool, device=x.device)
        firings = self._encode(x, tile, wanted)
        if self._selection_scale is not None:
            firings = firings._replace(values=firings.values / self._selection_scale[firings.features])
        return firings._replace(values=firings.values.tanh()) if self._tanh else firings

    def _encode(self, x: Tensor, tile: int, wanted: Tensor) -> Firings:
        if x.device.type == "cuda" and has_triton():
            if self.architecture == "topk":
                return self._kernels.top_k(x, tile, wanted, self.k)
            return self._kernels.positive(x, tile, wanted)
        return concatenate_firings(
            [self._firings_of(product, wanted[row : row + tile]) for row, _, product in products(x, self._w_enc, tile)]
        )

    def _firings_of(self, product: Tensor, wanted: Tensor) -> Firings:
        if self.architecture == "topk":
            return top_k_firings_of(product, wanted, self._activation, self.k)
        return firings_of(product, wanted, self._activation)

    def decode(self, features: SparseFeatures, activations: Tensor | None = None) -> Tensor:
        """Features of n samples -> reconstruction of the hook output (a transcoder's: of its output hook's), float32
        [n, T, d_out], to be compared with ``target``.

        ``activations`` [n, T, d_in] are what was encoded: needed where they were normalised, which is undone, and for
        a transcoder's skip connection. Raises ValueError if they are needed and missing, or if the SAE encodes only.
        """
        if self._w_dec is None:
            raise ValueError("this SAE encodes only: it has no decoder of its own")
        tokens = features.num_samples * features.num_positions
        rows = starts_of(features.tokens, tokens)  # [n * T + 1]
        summed = torch.nn.functional.embedding_bag(
            features.features,
            self._w_dec,
            rows,
            mode="sum",
            per_sample_weights=features.values,
            include_last_offset=True,
        )  # [n * T, D_out]
        decoded = (summed + self.b_dec).view(features.num_samples, features.num_positions, self.d_out)
        if self._w_skip is None and not self._input.is_restored:
            return decoded
        if activations is None:
            raise ValueError("this SAE's reconstruction depends on what was encoded: give decode the activations")
        decoded = self._input.restore(decoded, activations)
        return decoded if self._w_skip is None else decoded + self._input.centered(activations) @ self._w_skip

    def target(self, activations: Tensor) -> Tensor:
        """What ``decode`` reconstructs: the (output) hook's activations [..., d_out], float32, without their mean over
        d_out where the SAE was trained so."""
        return centered(activations) if self._center_target else activations.float()


def _by_column(matrix: Tensor) -> Tensor:
    """The matrix in the order of memory that a product reads best: on a GPU each column in one piece, which Hopper's
    tensor cores ask for in float32."""
    return matrix.contiguous() if matrix.device.type == "cpu" else matrix.t().contiguous().t()


class VarianceExplained:
    """Adds up how much of the activations' variance their reconstructions explain, on their device, in float64.

    1 - sum |x - x'|^2 / sum |x - mean|^2 over the counted positions; 1 is perfect, 0 no better than the mean.
    """

    def __init__(self) -> None:
        self._sums: list[Tensor] | None = None

    def add(self, activations: Tensor, reconstruction: Tensor, counted: Tensor) -> None:
        """Adds some tokens: ``activations`` and ``reconstruction`` [..., D], ``counted`` bool [...].

        No synchronisation. Peak extra memory: 24 bytes for each number of ``activations``.
        """
        mask, width = counted.unsqueeze(-1), activations.shape[-1]
        x = torch.where(mask, activations, 0).double()
        residual = (x - torch.where(mask, reconstruction, 0).double()).square().sum()
        part = [counted.sum().double(), x.view(-1, width).sum(0), x.square().sum(), residual]
        self._sums = part if self._sums is None else [a + b for a, b in zip(self._sums, part, strict=True)]

    def value(self) -> Tensor:
        """Float64 scalar; NaN where fewer than two positions count or they do not vary."""
        if self._sums is None:
            return torch.tensor(float("nan"), dtype=torch.float64)
        count, total, squares, residual = self._sums
        variance = squares - total.square().sum() / count  # |x - mean|^2, summed
        return torch.where((count > 1) & (variance > 0), 1 - residual / variance, float("nan"))


def variance_explained(activations: Tensor, reconstruction: Tensor, counted: Tensor) -> float:
    """The fraction of variance that a reconstruction explains (``VarianceExplained``) of these samples alone."""
    explained = VarianceExplained()
    explained.add(activations, reconstruction, counted)
    return float(explained.value())
