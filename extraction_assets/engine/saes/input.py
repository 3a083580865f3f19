"""What an SAE does to activations before encoding, and which of it is undone after decoding."""

import torch
from torch import Tensor

from extraction_assets.engine.saes.formats import SAEWeights

_EPS = 1e-5  # of layer_norm


class SaeInput:
    """The steps from a hook's output to the encoder's input, in the order of sae-lens's ``SAE.process_sae_in``:
    center, normalise, subtract the decoder's bias."""

    def __init__(self, weights: SAEWeights, device: torch.device | str) -> None:
        self._center, self._normalize = weights.center_input, weights.normalize_activations
        self._restores = not weights.is_transcoder  # sae-lens leaves a transcoder's output as it is
        self._bias = weights.b_dec.to(device) if weights.apply_b_dec_to_input else None

    def prepare(self, activations: Tensor, tile: int) -> Tensor:
        """Hook output [N, D] of any float dtype -> encoder input float32 [N, D].

        Sums over D run over ``tile`` rows at a time, so that a row's last bits do not depend on the others.
        """
        x = activations.float()
        if self._center or self._normalize != "none":
            x = torch.cat([self._normalized(part) for part in x.split(tile)])
        return x if self._bias is None else x - self._bias

    def centered(self, activations: Tensor) -> Tensor:
        """float32 [..., D]: the activations as the SAE knows them, before they are normalised."""
        return centered(activations) if self._center else activations.float()

    def restore(self, reconstruction: Tensor, activations: Tensor) -> Tensor:
        """What decode gives in the scale of the (centered) activations that were encoded: both [..., D].

        As ``run_time_activation_norm_fn_out`` of sae-lens: of layer_norm the standard deviation without its epsilon.
        """
        if not self._restores or self._normalize == "none":
            return reconstruction
        x = self.centered(activations)
        if self._normalize == "constant_norm_rescale":
            return reconstruction / _norm_coefficient(x)
        mean, deviation = _mean_and_deviation(x)
        return reconstruction * deviation + mean

    @property
    def is_restored(self) -> bool:
        """Whether ``restore`` needs the activations."""
        return self._restores and self._normalize != "none"

    def _normalized(self, x: Tensor) -> Tensor:
        x = self.centered(x)
        if self._normalize == "constant_norm_rescale":
            return x * _norm_coefficient(x)
        if self._normalize == "layer_norm":
            mean, deviation = _mean_and_deviation(x)
            return (x - mean) / (deviation + _EPS)
        return x


def centered(activations: Tensor) -> Tensor:
    """Activations [..., D] of any float dtype without their mean over D, float32."""
    x = activations.float()
    return x - x.mean(dim=-1, keepdim=True)


def _norm_coefficient(x: Tensor) -> Tensor:
    return x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True)


def _mean_and_deviation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Over D; the deviation is the unbiased one (D - 1)."""
    mean = x.mean(dim=-1, keepdim=True)
    return mean, (x - mean).std(dim=-1, keepdim=True)
