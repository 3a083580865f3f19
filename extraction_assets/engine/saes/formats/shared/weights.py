"""What every checkpoint format is read into."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from extraction_assets.engine.saes.formats.shared.files import CheckpointError
from extraction_assets.engine.saes.formats.shared.place import SaePlace
from extraction_assets.engine.saes.formats.shared.recorded import SaeRecord

if TYPE_CHECKING:
    from torch import Tensor

Architecture = Literal["standard", "jumprelu", "topk", "gated"]
Normalization = Literal["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in"]


_NORMED = 4096
"""Rows of a decoder whose norms are summed together."""
_LOOKED_AT = 1 << 21
"""Numbers of a tensor that are looked at together."""


@dataclass(frozen=True)
class SAEWeights:
    """An SAE's parameters in float32, all on one device.

    D is the width it reads, D_out (D unless a transcoder) what it gives.
    """

    architecture: Architecture
    w_enc: Tensor
    """[D, F]"""
    b_enc: Tensor
    """[F]; for ``gated`` the bias of the gate (b_gate)"""
    w_dec: Tensor | None
    """[F, D_out]; None of an SAE that encodes only: a layer of a cross-layer transcoder, whose decoders add up over
    layers, so that it reconstructs nothing alone"""
    b_dec: Tensor
    """[D_out]"""
    decoder_is_transposed: bool = False
    """The file holds the decoder as [D_out, F]."""
    apply_b_dec_to_input: bool = False
    """Subtract b_dec from the input before encoding."""
    extra: dict[str, Tensor] = field(default_factory=dict)
    """Further parameters of an architecture: threshold [F] (jumprelu); r_mag, b_mag [F] (gated)."""
    k: int = 0
    """Active features a token (topk)."""
    rescale_acts_by_decoder_norm: bool = False
    """Scale pre-activations by the norm of each decoder row."""
    selects_by_decoder_norm: bool = False
    """The same where it is decided which features fire, but not in their values."""
    tanh: bool = False
    """Features are the tanh of what fires (SAELens's old ``tanh-relu``)."""
    normalize_activations: Normalization = "none"
    """What is done to the input before anything else, and undone to what decode gives."""
    norm_scaling_factor: float | None = None
    """What ``expected_average_only_in`` multiplies the input by, where the checkpoint holds it."""
    output_scaling_factor: float | None = None
    """The same of a transcoder's output, where it has a factor of its own."""
    center_input: bool = False
    """Subtract from the input its mean over D, as TransformerLens does by ``center_writing_weights``."""
    center_target: bool = False
    """The same of the activations that reconstructions are compared with."""
    is_transcoder: bool = False
    """Gives the activations of another hook than the one it reads."""
    w_skip: Tensor | None = None
    """[D, D_out]: what a transcoder's output adds of its input."""
    record: SaeRecord = field(default_factory=SaeRecord)
    """What the checkpoint says about its model and training."""

    @property
    def d_in(self) -> int:
        return self.w_enc.shape[0]

    @property
    def d_out(self) -> int:
        return len(self.b_dec) if self.is_transcoder else self.d_in

    @property
    def reconstructs(self) -> bool:
        """Whether it has a decoder of its own."""
        return self.w_dec is not None

    @property
    def latent_dim(self) -> int:
        return self.w_enc.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter by name."""
        named = {"W_enc": self.w_enc, "b_enc": self.b_enc, "W_dec": self.w_dec, "b_dec": self.b_dec}
        held = {**named, **self.extra, "W_skip": self.w_skip}
        return {name: tensor for name, tensor in held.items() if tensor is not None}

    def validate(self, path: Path | SaePlace, file: str) -> None:
        """Shapes agree and every number is finite, or CheckpointError names the parameter of ``file``."""
        if self.w_enc.dim() != 2:
            raise CheckpointError(
                f"SAE {path}: {file}: W_enc has shape {tuple(self.w_enc.shape)}, expected (d_in, d_sae)"
            )
        d_in, d_out, latent_dim = self.d_in, self.d_out, self.latent_dim
        expected = {
            "W_enc": (d_in, latent_dim),
            "W_dec": (latent_dim, d_out),
            "b_dec": (d_out,),
            "W_skip": (d_in, d_out),
        }
        for name, tensor in self.tensors().items():
            shape = expected.get(name, (latent_dim,))
            if tuple(tensor.shape) != shape:
                raise CheckpointError(f"SAE {path}: {file}: {name} has shape {tuple(tensor.shape)}, expected {shape}")
            wrong = _not_finite(tensor)
            if wrong:
                raise CheckpointError(
                    f"SAE {path}: {file}: {name} holds {wrong} NaN or infinite value(s) of {tensor.numel()}; "
                    "download or export the checkpoint again"
                )
        most = path.latent_dim(latent_dim) if isinstance(path, SaePlace) else latent_dim
        if self.architecture == "topk" and not 1 <= self.k <= most:
            raise CheckpointError(f"SAE {path}: k is {self.k}, it must be between 1 and {most}, the features of {file}")
        if self.normalize_activations == "expected_average_only_in":
            raise CheckpointError(
                f"SAE {path}: normalize_activations = 'expected_average_only_in' needs the scale that its inputs were "
                "multiplied by, sqrt(d_in) / their mean norm, and the checkpoint does not hold it: set "
                "norm_scaling_factor of this SAE (1 if it is folded into the weights already)"
            )


def _not_finite(tensor: Tensor) -> int:
    """NaN and infinities. A sum is finite only if everything in it is, and takes a thirtieth of the time of a count;
    that goes a part at a time: ``isfinite`` makes a copy of what it looks at."""
    if bool(tensor.sum().isfinite()):
        return 0
    return sum(int((~part.isfinite()).sum()) for part in tensor.split(max(1, _LOOKED_AT // max(1, tensor[:1].numel()))))


def scaled_input(weights: SAEWeights, norm_scaling_factor: float) -> SAEWeights:
    """The same SAE for inputs that were multiplied by a constant in training, with the constant in its weights.

    W_enc * s, W_dec / s, b_dec / s, as sae-lens folds ``expected_average_only_in``
    (``SAE.fold_activation_norm_scaling_factor``); the decoder's s is ``output_scaling_factor`` if there is one. Where
    pre-activations are rescaled by the decoder's norms, these shrink by s, and a threshold with them. Overwrites the
    matrices, which have several GiB.
    """
    extra = dict(weights.extra)
    out = norm_scaling_factor if weights.output_scaling_factor is None else weights.output_scaling_factor
    if (weights.rescale_acts_by_decoder_norm or weights.selects_by_decoder_norm) and "threshold" in extra:
        extra["threshold"] = extra["threshold"] / out
    return replace(
        weights,
        w_enc=weights.w_enc.mul_(norm_scaling_factor),
        w_dec=None if weights.w_dec is None else weights.w_dec.div_(out),
        b_dec=weights.b_dec / out,
        extra=extra,
        normalize_activations="none",
    )


def _decoder_norms(w_dec: Tensor, is_transposed: bool) -> Tensor:
    """Norms of the decoder's rows [F], on its device: summed on the CPU in the order of the file, so that their last
    bits, and with them every feature's, are the same on every device and as first stored."""
    import torch

    norms = []
    for part in w_dec.split(_NORMED):
        on_cpu = part.cpu()
        norms.append((on_cpu.t().contiguous().t() if is_transposed else on_cpu).norm(dim=1))
    return torch.cat(norms).clamp(min=1e-8).to(w_dec.device)


def folded_decoder_norm(path: Path | SaePlace, weights: SAEWeights) -> SAEWeights:
    """The same SAE with decoder rows of norm 1, their norms in its features (sae-lens ``fold_W_dec_norm``).

    Overwrites the matrices, which have several GiB. Raises CheckpointError if the norms would change which features
    fire, not just their scale.
    """
    if weights.w_dec is None:
        raise CheckpointError(f"SAE {path}: fold_decoder_norm needs a decoder, and this SAE encodes only: leave it out")
    if weights.selects_by_decoder_norm:
        return replace(weights, selects_by_decoder_norm=False, rescale_acts_by_decoder_norm=True)
    if weights.tanh or (weights.architecture == "topk" and not weights.rescale_acts_by_decoder_norm):
        kind = "tanh-relu" if weights.tanh else "topk"
        raise CheckpointError(
            f"SAE {path}: fold_decoder_norm would change which features a {kind} SAE activates: leave it out"
        )
    if weights.rescale_acts_by_decoder_norm and weights.architecture != "topk":
        return weights  # its features are in this scale already
    norms = _decoder_norms(weights.w_dec, weights.decoder_is_transposed)
    extra = {name: t if name == "r_mag" else t * norms for name, t in weights.extra.items()}
    return replace(
        weights,
        w_enc=weights.w_enc.mul_(norms),
        b_enc=weights.b_enc * norms,
        w_dec=weights.w_dec.div_(norms[:, None]),
        extra=extra,
    )
