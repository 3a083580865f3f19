"""What the trained weights are worth, measured in float32 on files that nothing was trained on.

Shape letters: N samples, B samples in a batch, T positions, V vocabulary, D model width, F latents.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from extraction_assets.demo.training.documents import Samples
from extraction_assets.demo.training.language_model import HOOK, residual_stream
from extraction_assets.demo.training.sae import TopKSAE

BATCH_SIZE = 256


@torch.no_grad()
def bits_per_byte(model: LlamaForCausalLM, samples: Samples, byte_count: int) -> float:
    """Bits that the model needs for all counted tokens of samples, over the bytes of their text.

    The cut from ``[BOS] + tokens`` predicts every token of the text exactly once.
    """
    nats = 0.0
    for batch in samples.split(BATCH_SIZE):
        token_ids, is_counted = (tensor.to(model.device) for tensor in batch)
        logits = model(token_ids, use_cache=False).logits[:, :-1].float()  # [B, T - 1, V]
        losses = functional.cross_entropy(logits.transpose(1, 2), token_ids[:, 1:], reduction="none")
        nats += losses[is_counted[:, 1:]].double().sum().item()
    return nats / math.log(2) / byte_count


def bits_per_byte_with_sae(model: LlamaForCausalLM, sae: TopKSAE, samples: Samples, byte_count: int) -> float:
    """Bits per byte when the SAE's reconstruction stands in for the hooked output at all text tokens."""
    special = model.config.bos_token_id
    seen: list[torch.Tensor] = []

    def remember(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen[:] = [inputs[0]]

    def replace(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        is_text = seen[0] != special  # [B, T]
        reconstruction = sae.decode(sae.encode(output[is_text]))  # [counted, D]
        return output.masked_scatter(is_text[..., None], reconstruction)

    hooks = [
        model.model.embed_tokens.register_forward_pre_hook(remember),
        model.get_submodule(HOOK).register_forward_hook(replace),
    ]
    try:
        return bits_per_byte(model, samples, byte_count)
    finally:
        for hook in hooks:
            hook.remove()


class NGramBaselines:
    """Token unigram and bigram counts of the training samples: what guessing without a network achieves."""

    def __init__(self, samples: Samples, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size
        previous, following = _bigrams(samples)
        self.unigrams = torch.bincount(following, minlength=vocabulary_size).double()  # [V]
        pairs = torch.bincount(previous * vocabulary_size + following, minlength=vocabulary_size**2)
        self.bigrams = pairs.view(vocabulary_size, vocabulary_size).double()  # [V, V], 134 MB

    def unigram_bits_per_byte(self, samples: Samples, byte_count: int) -> float:
        """Token frequencies, add-one smoothed."""
        _, following = _bigrams(samples)
        return _bits(self._unigram_probabilities()[following]) / byte_count

    def bigram_bits_per_byte(self, samples: Samples, byte_count: int) -> float:
        """Frequencies after the token before (or BOS), Witten-Bell smoothed with the unigram.

        P(w | h) = (c(h, w) + t(h) P(w)) / (c(h) + t(h)), t(h) being the number of different tokens seen
        after h: nothing to tune. A history never seen falls back on P(w).
        """
        previous, following = _bigrams(samples)
        unigram = self._unigram_probabilities()[following]
        count = self.bigrams.sum(dim=1)[previous]
        different = (self.bigrams > 0).sum(dim=1).clamp(min=1)[previous]
        pair_count = self.bigrams[previous, following]
        return _bits((pair_count + different * unigram) / (count + different)) / byte_count

    def _unigram_probabilities(self) -> torch.Tensor:
        return (self.unigrams + 1) / (self.unigrams.sum() + self.vocabulary_size)


@dataclass(frozen=True)
class SAEQuality:
    """How an SAE does on samples."""

    positions: int
    """Counted positions measured."""
    variance_explained: float
    """1 - sum |x - reconstruction|^2 / sum |x - mean|^2 over the counted positions."""
    mean_l0: float
    """Latents that fire (> 0) at a counted position, on average."""
    fire_counts: torch.Tensor
    """[F] int64: counted positions at which each latent fires."""


@torch.no_grad()
def measure_sae(model: LlamaForCausalLM, sae: TopKSAE, samples: Samples) -> SAEQuality:
    """Run samples [N, T] through model and SAE; sums in float64, nothing kept but them."""
    d_in, d_sae = sae.W_enc.shape
    device = model.device
    total = torch.zeros(d_in, dtype=torch.float64, device=device)
    squares = errors = torch.zeros((), dtype=torch.float64, device=device)
    fire_counts = torch.zeros(d_sae, dtype=torch.int64, device=device)
    positions = 0
    for batch in samples.split(BATCH_SIZE):
        x = residual_stream(model, batch).float()  # [counted, D]
        activations = sae.encode(x)
        errors = errors + (x - sae.decode(activations)).double().square().sum()
        squares = squares + x.double().square().sum()
        total += x.double().sum(dim=0)
        fire_counts += torch.bincount(activations.latents[activations.values > 0], minlength=d_sae)
        positions += len(x)
    variance = squares - total.square().sum() / positions  # sum |x|^2 - n |mean|^2
    explained = 1 - (errors / variance).item()
    return SAEQuality(positions, explained, fire_counts.sum().item() / positions, fire_counts.cpu())


def dead_fraction(fire_counts: torch.Tensor) -> float:
    """Fraction of latents that never fire, from counts [F]."""
    return (fire_counts == 0).double().mean().item()


def highest_frequency(measured: SAEQuality) -> float:
    """Fraction of the positions at which the most frequent latent fires."""
    return measured.fire_counts.max().item() / measured.positions


def _bigrams(samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """(token before, token) of every counted token; BOS stands before a sample's first."""
    is_counted = samples.is_counted[:, 1:]
    return samples.token_ids[:, :-1][is_counted], samples.token_ids[:, 1:][is_counted]


def _bits(probabilities: torch.Tensor) -> float:
    return -probabilities.log2().sum().item()
