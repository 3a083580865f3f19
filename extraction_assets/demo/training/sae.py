"""The sparse autoencoder: TopK (Gao et al. 2024) on the residual stream, with their auxiliary loss.

Shape letters: B positions in a batch, D model width, F latents, K firing latents a position.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaForCausalLM

from extraction_assets.demo.training.documents import Samples, cut_into_samples
from extraction_assets.demo.training.language_model import HOOK, residual_stream

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SAESettings:
    """What the sparse autoencoder is and how it is trained."""

    d_sae: int = 4_096
    """Latents."""
    k: int = 24
    """Latents that fire at one position."""
    batch_size: int = 8_192
    """Positions in a step."""
    steps: int = 12_000
    """Optimizer steps."""
    learning_rate: float = 1e-3
    """Peak learning rate of Adam; linear warm-up, then constant, then linear to zero."""
    warmup_steps: int = 200
    """Steps of the warm-up."""
    decay_fraction: float = 0.5
    """Last part of training, over which the learning rate falls to zero."""
    dead_after: int = 500_000
    """Positions without firing after which a latent counts as dead and the auxiliary loss takes it up."""
    k_auxiliary: int = 96
    """Dead latents that try to rebuild one position's error (half of D, as in the paper)."""
    auxiliary_weight: float = 1 / 32
    """Weight of that loss."""


class SparseActivations(NamedTuple):
    """The K firing latents of each position."""

    values: torch.Tensor
    """[B, K] float32, >= 0."""
    latents: torch.Tensor
    """[B, K] int64."""


class TopKSAE(nn.Module):
    """``x -> topk(relu((x - b_dec) @ W_enc + b_enc)) @ W_dec + b_dec``, named and laid out as in SAELens."""

    def __init__(self, d_in: int, d_sae: int, k: int) -> None:
        super().__init__()
        self.k = k
        directions = nn.functional.normalize(torch.randn(d_sae, d_in), dim=1)  # [F, D]
        self.W_dec = nn.Parameter(directions)
        # An encoder that starts as the decoder's transpose leaves few latents dead.
        self.W_enc = nn.Parameter(directions.T.contiguous())  # [D, F]
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def pre_activations(self, x: torch.Tensor) -> torch.Tensor:
        """[B, D] -> [B, F]."""
        return (x - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: torch.Tensor) -> SparseActivations:
        """[B, D] -> the K strongest latents of each position."""
        return strongest(self.pre_activations(x), self.k)

    def decode(self, activations: SparseActivations) -> torch.Tensor:
        """The reconstruction [B, D]."""
        return self.write(activations) + self.b_dec

    def write(self, activations: SparseActivations) -> torch.Tensor:
        """The reconstruction without its bias [B, D]; peak extra memory is one dense [B, F]."""
        dense = activations.values.new_zeros(len(activations.values), len(self.W_dec))  # [B, F]
        return dense.scatter(1, activations.latents, activations.values) @ self.W_dec


def strongest(pre_activations: torch.Tensor, k: int) -> SparseActivations:
    """The k largest pre-activations [B, F] of each position, negative ones as zero."""
    values, latents = pre_activations.topk(k, dim=1, sorted=False)  # [B, K]
    return SparseActivations(values.relu(), latents)


def train_sae(
    model: LlamaForCausalLM, documents: list[np.ndarray], sample_length: int, settings: SAESettings, seed: int
) -> TopKSAE:
    """Train on the residual stream of tokenized documents ([tokens] each), in float32 (TF32 on a GPU)."""
    torch.manual_seed(seed)
    activations = activation_batches(model, documents, sample_length, settings.batch_size, seed)
    first = next(activations)  # [B, D]
    scale = _root_mean_square(first)
    sae = TopKSAE(first.shape[1], settings.d_sae, settings.k).to(first.device)
    sae.b_dec.data = (first / scale).mean(dim=0)
    with float32_matmul_precision("high"):
        _optimize(sae, (batch / scale for batch in activations), settings)
    fold_scale(sae, scale)
    return sae.eval()


def activation_batches(
    model: LlamaForCausalLM, documents: list[np.ndarray], sample_length: int, batch_size: int, seed: int
) -> Iterator[torch.Tensor]:
    """Endless shuffled batches [B, D] of the residual stream; every pass cuts the documents at other places.

    One pass over the corpus is held on the device: 3.2 million positions * 192 * 4 bytes = 2.5 GB.
    """
    random = np.random.default_rng(seed)
    generator = torch.Generator(model.device).manual_seed(seed)
    while True:
        first_lengths = random.integers(1, sample_length, size=len(documents))
        stream = corpus_residual_stream(model, cut_into_samples(documents, sample_length, first_lengths))
        order = torch.randperm(len(stream), generator=generator, device=stream.device)
        for rows in order.split(batch_size):
            if len(rows) == batch_size or len(order) < batch_size:
                yield stream[rows]


def corpus_residual_stream(model: LlamaForCausalLM, samples: Samples) -> torch.Tensor:
    """The residual stream at all counted positions of samples [N, T], in order: [counted, D] float32."""
    return torch.cat([residual_stream(model, batch).float() for batch in samples.split(256)])


def fold_scale(sae: TopKSAE, scale: float) -> None:
    """Make an SAE that was trained on x / scale read x itself: its activations grow by the scale, too.

    ((x / s) - b_dec) @ W_enc + b_enc, times s, is (x - s b_dec) @ W_enc + s b_enc: the same latents fire.
    """
    sae.b_dec.data *= scale
    sae.b_enc.data *= scale


def save_sae(sae: TopKSAE, folder: Path, dtype: torch.dtype, model_name: str, context_size: int) -> None:
    """Write the SAELens 6 form: cfg.json and sae_weights.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in sae.named_parameters()}
    save_file(weights, folder / "sae_weights.safetensors")
    d_in, d_sae = sae.W_enc.shape
    config = {
        "architecture": "topk",
        "d_in": d_in,
        "d_sae": d_sae,
        "k": sae.k,
        # The arithmetic's dtype: SAELens casts the 16-bit weights to it on loading.
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            "sae_lens_version": "6.0.0",
            "sae_lens_training_version": None,
            "model_name": model_name,
            "model_class_name": "AutoModelForCausalLM",
            "hook_name": HOOK,
            "context_size": context_size,
            "prepend_bos": True,
            "exclude_special_tokens": True,
        },
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=2) + "\n")


def load_sae(folder: Path, device: torch.device) -> TopKSAE:
    """The saved weights, computing in float32."""
    config = json.loads((folder / "cfg.json").read_text())
    sae = TopKSAE(config["d_in"], config["d_sae"], config["k"])
    sae.load_state_dict(load_file(folder / "sae_weights.safetensors"))  # casts to the module's float32
    return sae.to(device).eval()


@contextmanager
def float32_matmul_precision(precision: str) -> Iterator[None]:
    """Set the precision of float32 matrix products for a while ("high": TF32, several times faster)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _optimize(sae: TopKSAE, batches: Iterator[torch.Tensor], settings: SAESettings) -> None:
    """Train in place on batches [B, D]."""
    optimizer = torch.optim.Adam(sae.parameters(), lr=settings.learning_rate, fused=True)
    silent_for = torch.zeros(settings.d_sae, dtype=torch.int64, device=sae.W_enc.device)  # [F] positions
    for step, batch in zip(range(settings.steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        is_dead = silent_for > settings.dead_after  # [F]
        loss, unexplained, activations = _loss(sae, batch, is_dead, settings)
        loss.backward()
        _remove_parallel_gradient(sae)
        optimizer.step()
        optimizer.zero_grad()
        _normalize_decoder(sae)
        silent_for += len(batch)
        silent_for[activations.latents[activations.values > 0]] = 0
        if step % 500 == 0 or step == settings.steps - 1:
            dead = int(is_dead.sum())
            logger.info("SAE step %d: unexplained %.4f, dead %d", step, unexplained.item(), dead)


def learning_rate_at(step: int, settings: SAESettings) -> float:
    """Linear warm-up, constant, linear to zero."""
    warmup = (step + 1) / settings.warmup_steps
    decay = (settings.steps - step) / (settings.steps * settings.decay_fraction)
    return settings.learning_rate * min(1.0, warmup, decay)


def _loss(
    sae: TopKSAE, x: torch.Tensor, is_dead: torch.Tensor, settings: SAESettings
) -> tuple[torch.Tensor, torch.Tensor, SparseActivations]:
    """The loss, the fraction of variance left unexplained, and what fired, for a batch [B, D]."""
    pre_activations = sae.pre_activations(x)  # [B, F]
    activations = strongest(pre_activations, sae.k)
    error = x - sae.decode(activations)  # [B, D]
    unexplained = error.square().sum() / (x - x.mean(dim=0)).square().sum()
    loss = unexplained
    if is_dead.any():
        # Dead latents learn to rebuild the error that the living ones leave.
        helpers = strongest(pre_activations.masked_fill(~is_dead, -torch.inf), settings.k_auxiliary)
        target = error.detach()
        left = (target - sae.write(helpers)).square().sum() / target.square().sum()
        loss = loss + settings.auxiliary_weight * left
    return loss, unexplained.detach(), activations


@torch.no_grad()
def _remove_parallel_gradient(sae: TopKSAE) -> None:
    """Drop the part of the decoder's gradient that would only change its rows' norm."""
    gradient = sae.W_dec.grad
    assert gradient is not None
    gradient -= (gradient * sae.W_dec).sum(dim=1, keepdim=True) * sae.W_dec


@torch.no_grad()
def _normalize_decoder(sae: TopKSAE) -> None:
    sae.W_dec.data = nn.functional.normalize(sae.W_dec.data, dim=1)


def _root_mean_square(x: torch.Tensor) -> float:
    """Root mean square of the entries of x [B, D]."""
    return x.square().mean().sqrt().item()
