"""The language model: a small decoder-only Llama, trained on next-token prediction.

Shape letters: B samples in a batch, T positions.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from extraction_assets.demo.training.documents import SPECIAL_TOKEN_ID, Samples, shuffled_batches
from extraction_assets.demo.training.tokenizer import VOCABULARY_SIZE

HOOKED_BLOCK = 1
HOOK = f"model.layers.{HOOKED_BLOCK}"
IGNORED = -100  # the label that transformers leaves out of the loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LanguageModelSettings:
    """What the language model is and how it is trained."""

    d_model: int = 192
    """Width of the residual stream."""
    d_mlp: int = 512
    """Width inside each MLP."""
    blocks: int = 4
    """Transformer blocks."""
    heads: int = 6
    """Attention heads of each block."""
    context_length: int = 256
    """Positions that the rotary embedding is declared for."""
    sample_length: int = 128
    """Positions of a training sample: BOS and 127 tokens."""
    batch_size: int = 256
    """Samples in a step: 256 * 128 = 32,768 positions."""
    steps: int = 4_000
    """Optimizer steps."""
    learning_rate: float = 3e-3
    """Peak learning rate; linear warm-up, then a cosine to a hundredth of it."""
    warmup_steps: int = 200
    """Steps of the warm-up."""
    weight_decay: float = 0.1
    """AdamW's decay, on matrices alone."""
    dropout: float = 0.1
    """Dropout of the embedding and of what every block adds, while training."""


def build_language_model(settings: LanguageModelSettings) -> LlamaForCausalLM:
    """An untrained Llama in float32 with tied embeddings."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=settings.d_model,
            intermediate_size=settings.d_mlp,
            num_hidden_layers=settings.blocks,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=settings.context_length,
            tie_word_embeddings=True,
            bos_token_id=SPECIAL_TOKEN_ID,
            eos_token_id=SPECIAL_TOKEN_ID,
            pad_token_id=SPECIAL_TOKEN_ID,
        )
    )
    # transformers freezes the embedding of padding, which here is BOS as well and has something to learn.
    model.model.embed_tokens.padding_idx = None
    return model


def train_language_model(
    documents: list[np.ndarray], settings: LanguageModelSettings, device: torch.device, seed: int
) -> LlamaForCausalLM:
    """Train on tokenized documents ([tokens] each); float32 weights, bfloat16 arithmetic on a GPU."""
    torch.manual_seed(seed)
    model = build_language_model(settings).to(device).train()
    dropout_hooks = _add_dropout(model, settings.dropout)
    optimizer = _optimizer(model, settings)
    batches = shuffled_batches(documents, settings.sample_length, settings.batch_size, seed)
    for step, batch in zip(range(settings.steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, settings)
        loss = _loss(model, batch, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 250 == 0 or step == settings.steps - 1:
            logger.info("language model step %d: loss %.3f nats a token", step, loss.item())
    for hook in dropout_hooks:
        hook.remove()
    return model.eval()


def learning_rate_at(step: int, settings: LanguageModelSettings) -> float:
    """Linear warm-up, then a cosine from the peak to a hundredth of it."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def load_language_model(folder: Path, device: torch.device) -> LlamaForCausalLM:
    """The saved weights, computing in float32."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()


@torch.no_grad()
def residual_stream(model: LlamaForCausalLM, samples: Samples) -> torch.Tensor:
    """What module ``model.layers.1`` puts out at the counted positions: [counted, D], the model's dtype."""
    output = model.model(samples.token_ids.to(model.device), output_hidden_states=True, use_cache=False)
    hidden = output.hidden_states[HOOKED_BLOCK + 1]  # [B, T, D]; entry 0 is the embedding
    return hidden[samples.is_counted.to(model.device)]


def _loss(model: LlamaForCausalLM, batch: Samples, device: torch.device) -> torch.Tensor:
    """Mean cross-entropy in nats over the counted tokens of a batch [B, T]."""
    # Right padding needs no attention mask: causal attention never looks at it from a counted token.
    labels = batch.token_ids.masked_fill(~batch.is_counted, IGNORED)  # [B, T]
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        output = model(
            input_ids=batch.token_ids.to(device, non_blocking=True),
            labels=labels.to(device, non_blocking=True),
            use_cache=False,
        )
    return output.loss


def _optimizer(model: LlamaForCausalLM, settings: LanguageModelSettings) -> torch.optim.AdamW:
    matrices = [weight for weight in model.parameters() if weight.ndim == 2]
    vectors = [weight for weight in model.parameters() if weight.ndim != 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)


def _add_dropout(model: LlamaForCausalLM, rate: float) -> list[torch.utils.hooks.RemovableHandle]:
    """Hook dropout in where GPT-2 has it: Llama's configuration knows none there."""

    def drop(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return functional.dropout(output, rate)

    writers = ("embed_tokens", "o_proj", "down_proj")  # what writes to the residual stream
    return [module.register_forward_hook(drop) for name, module in model.named_modules() if name.endswith(writers)]
