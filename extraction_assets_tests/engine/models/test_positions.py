"""A model is asked how many positions it takes, where its configuration does not tell."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, LEDConfig, LlamaConfig, LongformerConfig, RobertaConfig

from extraction_assets.engine.corpora.tokenize import CorpusError
from extraction_assets.engine.models import positions
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets.engine.models.positions import fewer_positions, usual_positions
from extraction_assets.engine.preflight.compatibility import check_combination
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.models.tiny_types import tiny_config


def saved(folder: Path, model_type: str) -> str:
    tiny_config(model_type).save_pretrained(folder)
    return str(folder)


def roberta(folder: Path) -> str:
    """514 embeddings of positions, as all published ones."""
    config = RobertaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=514,
    )
    config.save_pretrained(folder)
    return str(folder)


def test_roberta_takes_two_positions_less_than_its_table_has(tmp_path: Path) -> None:
    path = roberta(tmp_path)
    assert fewer_positions(local(path), 512) is None
    assert [fewer_positions(local(path), length) for length in (513, 514)] == [512, 512]


def test_a_corpus_too_long_for_the_model_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"max_length is 513, but .* takes at most 512 positions: lower max_length"):
        check_combination(local(roberta(tmp_path)), {}, 513)


@pytest.mark.parametrize(
    "model_type", ["gpt2", "opt", "bert", "bart", "gptj", "biogpt", "xglm", "deberta-v2", "big_bird"]
)
def test_a_table_without_rows_for_padding_is_used_to_its_end(model_type: str, tmp_path: Path) -> None:
    assert fewer_positions(local(saved(tmp_path, model_type)), 64) is None


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "camembert", "longformer", "esm", "ibert"])
def test_a_table_with_rows_for_padding_ends_before_them(model_type: str, tmp_path: Path) -> None:
    path = saved(tmp_path, model_type)
    assert fewer_positions(local(path), 64) == 63  # padding is token 0
    assert fewer_positions(local(path), 63) is None


@pytest.mark.parametrize("model_type", ["gpt2", "gptj", "opt", "mpt"])
def test_the_models_own_answer_is_that_of_the_whole_model(model_type: str, tmp_path: Path) -> None:
    """Beyond the configuration's limit, where the model itself fails."""
    config = tiny_config(model_type)
    config.save_pretrained(tmp_path)
    whole = AutoModel.from_config(config).eval()
    with torch.inference_mode(), pytest.raises((IndexError, RuntimeError)):
        whole(input_ids=torch.full((1, 65), 7))
    assert fewer_positions(local(tmp_path), 80) == 64


def test_a_model_that_rotates_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "_takes", lambda *_: pytest.fail("it was asked"))
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    for limit in (40, 16):  # 16 is its width too, as in Llama 2 7B 4,096 is both
        LlamaConfig(**sizes, num_hidden_layers=1, max_position_embeddings=limit).save_pretrained(tmp_path)
        assert fewer_positions(local(tmp_path), limit) is None


def test_the_limit_of_a_model_that_rotates_is_its_configurations(tmp_path: Path) -> None:
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    LlamaConfig(**sizes, num_hidden_layers=1, max_position_embeddings=40).save_pretrained(tmp_path)
    with pytest.raises(CorpusError, match=r"max_length is 41, but .* takes at most 40 positions"):
        check_combination(local(tmp_path), {}, 41)


@pytest.mark.parametrize("model_type", ["bloom", "t5", "mamba"])
def test_models_without_a_limit_take_any_length(model_type: str, tmp_path: Path) -> None:
    assert fewer_positions(local(saved(tmp_path, model_type)), 100) is None


BERT_SIZES: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
BERT_SIZES |= {"num_attention_heads": 2}
LED_SIZES: dict[str, Any] = {"vocab_size": 50, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2}
LED_SIZES |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}


@pytest.mark.parametrize(
    ("config", "usual"),
    [
        (RobertaConfig(**BERT_SIZES, max_position_embeddings=66), 64),
        (RobertaConfig(**BERT_SIZES, max_position_embeddings=514), 128),
        (LlamaConfig(**BERT_SIZES, max_position_embeddings=66), 66),
        (LongformerConfig(**BERT_SIZES, max_position_embeddings=64, attention_window=[4, 4]), 60),
        (LongformerConfig(**BERT_SIZES, max_position_embeddings=514, attention_window=[64, 256]), 256),
        (LongformerConfig(**BERT_SIZES, max_position_embeddings=202, attention_window=[80, 80]), 160),
        (LongformerConfig(**BERT_SIZES, max_position_embeddings=150, attention_window=80), 80),
        (LEDConfig(**LED_SIZES, max_encoder_position_embeddings=66, attention_window=[4, 4]), 64),
    ],
)
def test_the_usual_length_is_one_that_the_model_takes(config: Any, usual: int, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    assert usual_positions(local(tmp_path), 128) == usual
    AutoModel.from_config(config).save_pretrained(tmp_path)
    hook = {"led": "encoder.layers.1", "llama": "layers.1"}.get(config.model_type, "encoder.layer.1")
    ids = torch.full((2, usual), 7)
    [output] = load_language_model(local(tmp_path), [hook]).activations(ids, torch.ones_like(ids).bool()).values()
    assert output.shape == (2, usual, 16)


def test_a_window_for_each_block_does_not_hide_the_models_limit(tmp_path: Path) -> None:
    LongformerConfig(**BERT_SIZES, max_position_embeddings=64, attention_window=[4, 4]).save_pretrained(tmp_path)
    assert fewer_positions(local(tmp_path), 64) == 62
