"""Tiny real things: a Llama model with its tokenizer, SAEs in SAELens's form, a folder of texts."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from extraction_assets.settings import ExtractionSettings

D_MODEL, NUM_LAYERS, NUM_FEATURES = 16, 3, 48

TEXTS = {
    "first.txt": "the quick brown fox jumps over the lazy dog, and the dog sleeps on.\n" * 6,
    "second.txt": "def add(a, b):\n    return a + b\n\n\ndef fox():\n    raise ValueError('lazy')\n" * 8,
    "third.txt": "naïve café, ünïcödé and 😀 emoji; a tab\there. " * 7,
}


def make_texts(folder: Path) -> Path:
    """A folder of three short documents."""
    folder.mkdir(parents=True)
    for name, text in TEXTS.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def make_language_model(
    folder: Path, seed: int = 0, layers: int = NUM_LAYERS, *, special: Sequence[str] = (), **tokenizer_options: object
) -> Path:
    """A random Llama with a byte-level BPE tokenizer whose pad token is its BOS and EOS token.

    ``special`` are more special tokens, ``tokenizer_options`` what transformers' tokenizer is given.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS.values(), trainer)
    end = "<|endoftext|>"
    options = {"bos_token": end, "eos_token": end, "pad_token": end, **tokenizer_options}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options).save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=D_MODEL,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaModel(config).save_pretrained(folder)
    return folder


def make_sae(
    folder: Path,
    architecture: str = "standard",
    *,
    d_in: int = D_MODEL,
    d_sae: int = NUM_FEATURES,
    seed: int = 1,
    **config: object,
) -> Path:
    """A random SAE as SAELens 6 stores it."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.5

    tensors = {"W_enc": random(d_in, d_sae), "W_dec": random(d_sae, d_in), "b_dec": random(d_in)}
    tensors["b_gate" if architecture == "gated" else "b_enc"] = random(d_sae) - 0.3
    if "skip" in architecture:
        tensors["W_skip"] = random(d_in, d_in)
    if architecture.startswith("jumprelu"):
        tensors["threshold"] = random(d_sae).abs() + 0.05
    if architecture == "gated":
        tensors |= {"r_mag": random(d_sae), "b_mag": random(d_sae)}
    save_file(tensors, folder / "sae_weights.safetensors")
    settings = {"architecture": architecture, "d_in": d_in, "d_sae": d_sae, "apply_b_dec_to_input": True}
    settings |= {"normalize_activations": "none", "reshape_activations": "none", **config}
    if architecture == "topk":
        settings.setdefault("k", 6)
    (folder / "cfg.json").write_text(json.dumps(settings))
    return folder


def make_faithful_sae(folder: Path, *, hook: str | None = None) -> Path:
    """An SAE that gives back any activations: a feature for each direction and its opposite, and as many dead ones."""
    folder.mkdir(parents=True)
    both = torch.cat([torch.eye(D_MODEL), -torch.eye(D_MODEL)])  # [2 D, D]
    dead = torch.zeros(2 * D_MODEL, D_MODEL)
    tensors = {
        "W_enc": torch.cat([both, dead]).t().contiguous(),
        "W_dec": torch.cat([both, dead]),
        "b_enc": torch.zeros(4 * D_MODEL),
        "b_dec": torch.zeros(D_MODEL),
    }
    save_file(tensors, folder / "sae_weights.safetensors")
    metadata = {} if hook is None else {"hook_name": hook}
    settings = {"architecture": "standard", "d_in": D_MODEL, "d_sae": 4 * D_MODEL, "apply_b_dec_to_input": False}
    (folder / "cfg.json").write_text(json.dumps({**settings, "metadata": metadata}))
    return folder


def make_settings(folder: Path, **changes: object) -> ExtractionSettings:
    """An extraction of the tiny things, made under ``folder``: two SAEs at two hooks, 23 samples in chunks of 8."""
    if not (folder / "model").exists():
        make_language_model(folder / "model")
        make_texts(folder / "texts")
        make_sae(folder / "relu")
        make_sae(folder / "topk", "topk", seed=2)
    loose = -1e9  # a random SAE reconstructs nothing
    values: dict[str, object] = {
        "name": "tiny",
        "language_model": {"path": str(folder / "model")},
        "corpus": {"source": str(folder / "texts"), "max_length": 16},
        "saes": {
            "relu": {"path": str(folder / "relu"), "hook": "layers.0", "minimum_variance_explained": loose},
            "topk": {"path": str(folder / "topk"), "hook": "layers.1", "minimum_variance_explained": loose},
        },
        "evaluation_samples": 23,
        "chunk_size": 8,
        "top_k_examples": 5,
    }
    return ExtractionSettings.model_validate({**values, **changes})
