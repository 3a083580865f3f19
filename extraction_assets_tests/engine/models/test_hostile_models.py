"""Folders of models that are damaged or made to harm: each is refused by one sentence with its file's name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.engine.file_boundary import CheckpointError
from extraction_assets.engine.models.files.local_checkpoint import checkpoint_files
from extraction_assets.engine.models.language_model import (
    context_length,
    load_language_model,
    probe_hooks,
)
from extraction_assets.engine.models.tokenizers.tokenizer import TokenizerError, load_tokenizer
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.models.weights.test_loaded_weights import shard, write_index
from extraction_assets_tests.engine.saes.formats.test_hostile import Spoil, deep, header, loop, merge, put, replaced

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX, FIRST = "model.safetensors.index.json", "model-00001-of-00002.safetensors"


def index(content: str | bytes) -> Spoil:
    """Weights in two files, with another index."""

    def spoil(folder: Path) -> None:
        shard(folder, lambda key: key.startswith("layers.0"))
        put(INDEX, content)(folder)

    return spoil


def mapped(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Weights in two files, with a changed map of the index."""

    def spoil(folder: Path) -> None:
        names = shard(folder, lambda key: key.startswith("layers.0"))
        change(names)
        write_index(folder, names)

    return spoil


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


HOSTILE: dict[str, tuple[str, Spoil]] = {
    "config empty": (CONFIG, put(CONFIG, "")),
    "config list": (CONFIG, put(CONFIG, "[1]")),
    "config number": (CONFIG, put(CONFIG, "3")),
    "config deep": (CONFIG, put(CONFIG, '{"model_type": ' + deep(200_000) + "}")),
    "config key twice": (CONFIG, put(CONFIG, '{"model_type": "llama", "model_type": "gpt2"}')),
    "config not utf-8": (CONFIG, put(CONFIG, b'{"model_type": "\xff"}')),
    "config huge": (CONFIG, lambda folder: os.truncate(folder / CONFIG, 1 << 40)),
    "config folder": (CONFIG, replaced(CONFIG, Path.mkdir)),
    "config pipe": (CONFIG, replaced(CONFIG, os.mkfifo)),
    "config loop": (CONFIG, replaced(CONFIG, loop)),
    "config without a type": (CONFIG, put(CONFIG, "{}")),
    "config of an unknown type": (CONFIG, merge(CONFIG, model_type="no_such_model")),
    "type a list": (CONFIG, merge(CONFIG, model_type=["llama"])),
    "negative width": (CONFIG, merge(CONFIG, hidden_size=-16)),
    "width as text": (CONFIG, merge(CONFIG, hidden_size="wide")),
    "width of 20 digits": (CONFIG, merge(CONFIG, hidden_size=10**20)),
    "heads that do not divide": (CONFIG, merge(CONFIG, num_attention_heads=0)),
    "a billion layers": (CONFIG, merge(CONFIG, num_hidden_layers=10**9)),
    "negative layers": (CONFIG, merge(CONFIG, num_hidden_layers=-1)),
    "vocabulary larger than the weights": (CONFIG, merge(CONFIG, vocab_size=10**13)),
    "vocabulary that would fill memory": (CONFIG, merge(CONFIG, vocab_size=10**9)),
    "unknown activation": (CONFIG, merge(CONFIG, hidden_act="nothing")),
    "dtype of no name": (CONFIG, merge(CONFIG, dtype="float7")),
    "quantization a number": (CONFIG, merge(CONFIG, quantization_config=7)),
    "quantization without its package": (CONFIG, merge(CONFIG, quantization_config={"quant_method": "aqlm"})),
    "weights outside the folder": (CONFIG, merge(CONFIG, transformers_weights="../other.safetensors")),
    "adapter": ("adapter_config.json", put("adapter_config.json", "{}")),
    "weights empty": (WEIGHTS, put(WEIGHTS, b"")),
    "weights cut": (WEIGHTS, cut),
    "weights text": (WEIGHTS, put(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n")),
    "weights folder": (WEIGHTS, replaced(WEIGHTS, Path.mkdir)),
    "weights pipe": (WEIGHTS, replaced(WEIGHTS, os.mkfifo)),
    "weights missing": (WEIGHTS, lambda folder: (folder / WEIGHTS).unlink()),
    "header deep": (WEIGHTS, put(WEIGHTS, (200_000).to_bytes(8, "little") + deep(100_000).encode())),
    "header key twice": (WEIGHTS, put(WEIGHTS, (20).to_bytes(8, "little") + b'{"a": 1, "a": 2}    ')),
    "negative shape": (WEIGHTS, header(WEIGHTS, lambda all_: all_["norm.weight"].update(shape=[-16]))),
    "NaN shape": (WEIGHTS, header(WEIGHTS, lambda all_: all_["norm.weight"].update(shape=[float("nan")]))),
    "index list": (INDEX, index("[]")),
    "index deep": (INDEX, index(deep(200_000))),
    "index without a map": (INDEX, index('{"metadata": {}}')),
    "index without metadata": (INDEX, index('{"weight_map": {"norm.weight": "model-00001-of-00002.safetensors"}}')),
    "index of numbers": (INDEX, mapped(lambda names: names.update({"norm.weight": 3}))),
    "index outside the folder": (INDEX, mapped(lambda names: names.update({"norm.weight": "../model.safetensors"}))),
    "index to a file that is missing": ("other.safetensors", mapped(lambda n: n.update({"a": "other.safetensors"}))),
    "tokenizer empty": (TOKENIZER, put(TOKENIZER, "")),
    "tokenizer list": (TOKENIZER, put(TOKENIZER, "[]")),
    "tokenizer deep": (TOKENIZER, put(TOKENIZER, '{"model": ' + deep(200_000) + "}")),
    "tokenizer without a model": (TOKENIZER, put(TOKENIZER, '{"version": "1.0"}')),
    "tokenizer pipe": (TOKENIZER, replaced(TOKENIZER, os.mkfifo)),
    "tokenizer configuration a list": ("tokenizer_config.json", put("tokenizer_config.json", "[]")),
    "tokenizer configuration deep": ("tokenizer_config.json", put("tokenizer_config.json", deep(200_000))),
    "special tokens not utf-8": ("special_tokens_map.json", put("special_tokens_map.json", b"\xff")),
}


def read_all(folder: str) -> None:
    """What a run does with a model, in its order."""
    checkpoint = local(folder)
    load_tokenizer(checkpoint)
    context_length(checkpoint)
    checkpoint_files(checkpoint)
    probe_hooks(checkpoint, ["layers.1"])
    load_language_model(checkpoint, ["layers.1"])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_by_one_sentence_with_its_files_name(name: str, llama: str, tmp_path: Path) -> None:
    file, spoil = HOSTILE[name]
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    spoil(folder)
    with pytest.raises((CheckpointError, TokenizerError, FileNotFoundError)) as caught:
        read_all(str(folder))
    message = str(caught.value)
    assert str(folder) in message
    assert file in message or name == "weights missing"
    assert message.isprintable()
    assert len(message) < 700


def test_a_sound_model_is_read(llama: str) -> None:
    read_all(llama)


def test_a_folder_without_configuration_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks config\.json"):
        checkpoint_files(local(tmp_path))


@pytest.mark.parametrize("level", ["WARNING", "ERROR"])  # sae-lens sets the second one where it is imported
def test_a_part_of_a_mixture_that_is_missing_is_named(
    level: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=20, num_key_value_heads=2, num_local_experts=4, **sizes)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    caplog.set_level(level, "transformers")
    load_language_model(local(tmp_path), ["layers.1"])
    part = "model.layers.0.block_sparse_moe.experts.2.w1.weight"
    save_file({**tensors, part: torch.ones(3, 16)}, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"holds other parts of layers\.0\.mlp\.experts\.gate_up_proj than"):
        load_language_model(local(tmp_path), ["layers.1"])
    del tensors[part]
    save_file(tensors, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.experts\.gate_up_proj"):
        load_language_model(local(tmp_path), ["layers.1"])


def test_the_list_is_long_enough() -> None:
    assert len(HOSTILE) >= 12
    assert json.dumps(sorted(HOSTILE))
