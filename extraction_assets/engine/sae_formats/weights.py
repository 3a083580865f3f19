"""What every checkpoint format is read into."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Architecture = Literal["standard", "jumprelu", "topk", "gated"]


class CheckpointError(ValueError):
    """An SAE checkpoint that is missing, unknown, cut or unusable; the message names it and says why."""


@dataclass(frozen=True)
class SAEWeights:
    """An SAE's parameters, float32 on the CPU."""

    architecture: Architecture
    w_enc: Tensor
    """[D, F]"""
    b_enc: Tensor
    """[F]; for ``gated`` the bias of the gate (b_gate)"""
    w_dec: Tensor
    """[F, D]"""
    b_dec: Tensor
    """[D]"""
    apply_b_dec_to_input: bool = False
    """Subtract b_dec from the input before encoding."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Further parameters of an architecture: threshold [F] (jumprelu); r_mag, b_mag [F] (gated)."""
    k: int = 0
    """Active features a token (topk)."""
    rescale_acts_by_decoder_norm: bool = False
    """Scale pre-activations by the norm of each decoder row (topk)."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the checkpoint says about its model and training."""

    @property
    def d_in(self) -> int:
        return self.w_enc.shape[0]

    @property
    def latent_dim(self) -> int:
        return self.w_enc.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter by name."""
        return {
            "W_enc": self.w_enc,
            "b_enc": self.b_enc,
            "W_dec": self.w_dec,
            "b_dec": self.b_dec,
            **self.extra,
        }

    def validate(self, path: Path) -> None:
        """Shapes agree and every number is finite, or CheckpointError names the parameter."""
        if self.w_enc.dim() != 2:
            raise CheckpointError(f"SAE {path}: W_enc has shape {tuple(self.w_enc.shape)}, expected (d_in, d_sae)")
        d_in, latent_dim = self.w_enc.shape
        expected = {"W_enc": (d_in, latent_dim), "W_dec": (latent_dim, d_in), "b_dec": (d_in,)}
        for name, tensor in self.tensors().items():
            shape = expected.get(name, (latent_dim,))
            if tuple(tensor.shape) != shape:
                raise CheckpointError(f"SAE {path}: {name} has shape {tuple(tensor.shape)}, expected {shape}")
            wrong = int((~torch.isfinite(tensor)).sum())
            if wrong:
                raise CheckpointError(
                    f"SAE {path}: {name} holds {wrong} NaN or infinite value(s) of {tensor.numel()}; "
                    "download or export the checkpoint again"
                )
        if self.architecture == "topk" and not 1 <= self.k <= latent_dim:
            raise CheckpointError(f"SAE {path}: k is {self.k}, it must be between 1 and {latent_dim} features")
