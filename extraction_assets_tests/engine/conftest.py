"""Tiny models of several architectures and SAEs of every kind, made once."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, GPTNeoXConfig, GPTNeoXModel

from extraction_assets_tests import tiny

ARCHITECTURES = ["standard", "jumprelu", "topk", "gated"]


@pytest.fixture(scope="session")
def llama(tiny_folder: Path) -> str:
    """Folder of a random Llama of three layers."""
    return str(tiny_folder / "model")


@pytest.fixture(scope="session")
def other_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a random GPT-2, GPT-NeoX and BERT, each of two layers, 16 wide, with 50 tokens."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "max_position_embeddings": 32}
    depth = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    models = {
        "gpt2": GPT2Model(GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2)),
        "gpt_neox": GPTNeoXModel(GPTNeoXConfig(**sizes, **depth)),
        "bert": BertModel(BertConfig(**sizes, **depth)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
    return {name: str(folder / name) for name in models}


@pytest.fixture(scope="session")
def sae_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One random SAE of each architecture. Not to be changed."""
    folder = tmp_path_factory.mktemp("saes")
    return {name: tiny.make_sae(folder / name, name, seed=seed) for seed, name in enumerate(ARCHITECTURES, 3)}
