"""Unembedding and final norm from the files of a checkpoint are those of transformers' own class with its head."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from extraction_assets.engine.directions.stream import NotDefined
from extraction_assets.engine.directions.unembedding import Unembedding, read_unembedding
from extraction_assets.engine.file_boundary import CheckpointError
from extraction_assets.engine.models.hooks.hook import HookError
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.directions.models import MODELS, lens_by_the_model, save_with_head
from extraction_assets_tests.engine.families import D_MODEL, VOCABULARY, make_model

ROWS = torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(1)) + 0.5


def read(folder: Path, hook: str = "model.layers.1") -> Unembedding:
    return read_unembedding(local(folder), hook)


def lens(found: Unembedding) -> torch.Tensor:
    return found.norm.apply(ROWS).double() @ found.weight.double().t()


@pytest.mark.parametrize("name", MODELS)
def test_the_lens_is_that_of_the_models_own_norm_and_head(name: str, tmp_path: Path) -> None:
    whole = save_with_head(tmp_path, name)
    found = read(tmp_path, f"{MODELS[name].blocks}.1")
    expected = lens_by_the_model(whole, MODELS[name].norm, ROWS)
    torch.testing.assert_close(lens(found), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(found.weight, whole.get_output_embeddings().weight)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "GPT2LMHeadModel", "Gemma3ForConditionalGeneration"])
def test_a_head_is_found_tied_or_not(name: str, tied: bool, tmp_path: Path) -> None:
    whole = save_with_head(tmp_path, name, tied=tied)
    found = read(tmp_path, f"{MODELS[name].blocks}.1")
    assert torch.equal(found.weight, whole.get_output_embeddings().weight)
    assert ("to which lm_head.weight is tied" in found.description) is tied


def test_a_head_is_found_among_several_files(tmp_path: Path) -> None:
    whole = save_with_head(tmp_path, "LlamaForCausalLM", max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert torch.equal(read(tmp_path).weight, whole.lm_head.weight)


def test_of_two_tensors_that_are_to_be_tied_the_heads_own_counts(tmp_path: Path) -> None:
    """As ``from_pretrained`` has it where their numbers differ."""
    save_with_head(tmp_path, "LlamaForCausalLM", tied=True)
    file = tmp_path / "model.safetensors"
    head = torch.randn(VOCABULARY, D_MODEL)
    save_file(load_file(file) | {"lm_head.weight": head}, file, {"format": "pt"})
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path).lm_head.weight
    assert torch.equal(loaded, head)
    assert torch.equal(read(tmp_path).weight, head)


def test_a_model_saved_without_its_head_has_the_embedding_that_a_head_is_tied_to(tmp_path: Path) -> None:
    make_model(tmp_path, "gemma2")
    assert torch.equal(
        read(tmp_path, "layers.1").weight, load_file(tmp_path / "model.safetensors")["embed_tokens.weight"]
    )


def test_a_model_saved_without_its_head_has_no_lens_where_nothing_is_tied(tmp_path: Path) -> None:
    make_model(tmp_path, "llama")
    with pytest.raises(
        NotDefined, match=r"model.safetensors holds no lm_head.weight, and the token embedding is not tied"
    ):
        read(tmp_path, "layers.1")


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    whole = save_with_head(tmp_path, "LlamaForCausalLM")
    whole.to(torch.bfloat16).save_pretrained(tmp_path)
    found = read(tmp_path)
    assert found.weight.dtype == torch.float32
    assert torch.equal(found.weight, whole.lm_head.weight.float())


def test_what_enters_and_what_is_left_out_is_stated(tmp_path: Path) -> None:
    save_with_head(tmp_path / "gemma2", "Gemma2ForCausalLM")
    assert read(tmp_path / "gemma2").description == (
        "Gemma2RMSNorm model.norm: times its gain (1 + weight); unembedded by model.embed_tokens.weight, to which "
        "lm_head.weight is tied; left out: the division by the norm's size, the soft-capping of logits at 30"
    )
    save_with_head(tmp_path / "phi", "PhiForCausalLM")
    assert read(tmp_path / "phi").description == (
        "LayerNorm model.final_layernorm: the mean over the width subtracted, then times its gain (weight); unembedded "
        "by lm_head.weight; left out: the division by the norm's size, the norm's bias, the unembedding's bias"
    )
    save_with_head(tmp_path / "olmo", "OlmoForCausalLM")
    assert "OlmoLayerNorm model.norm: the mean over the width subtracted, then no gain;" in (
        read(tmp_path / "olmo").description
    )
    save_with_head(tmp_path / "granite", "GraniteForCausalLM")
    assert read(tmp_path / "granite").description.endswith("the norm's size, the divisor 4 of logits")


@pytest.mark.parametrize(("family", "hook"), [("bert", "encoder.layer.1"), ("roberta", "encoder.layer.1")])
def test_an_encoder_has_no_lens(family: str, hook: str, tmp_path: Path) -> None:
    make_model(tmp_path, family)
    with pytest.raises(NotDefined, match=r"is not part of the residual stream"):
        read(tmp_path, hook)


def test_an_encoder_with_a_head_for_masked_tokens_has_no_lens(tmp_path: Path) -> None:
    config = transformers.BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(NotDefined, match=r"final norm cls.predictions.transform.LayerNorm reads"):
        read(tmp_path, "encoder.layer.1")


def test_an_encoder_and_decoder_has_no_lens(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=50, d_model=16, d_kv=4, d_ff=20, num_layers=2, num_heads=4)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(NotDefined, match=r"T5ForConditionalGeneration over text, without weights, ends with"):
        read(tmp_path, "encoder.block.1")


def test_a_projection_between_norm_and_unembedding_is_no_norm(tmp_path: Path) -> None:
    """As in opt-350m, whose embedding is narrower than its stream."""
    config = MODELS["OPTForCausalLM"].config()
    config.word_embed_proj_dim = 8
    transformers.OPTForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(NotDefined, match=r"model.decoder.project_out"):
        read(tmp_path, "decoder.layers.1")


def test_packed_numbers_have_no_lens(tmp_path: Path) -> None:
    save_with_head(tmp_path, "LlamaForCausalLM")
    file = tmp_path / "model.safetensors"
    packed = torch.zeros(VOCABULARY, D_MODEL, dtype=torch.int8)
    save_file(load_file(file) | {"lm_head.weight": packed}, file, {"format": "pt"})
    with pytest.raises(
        NotDefined, match=r"holds 'lm_head.weight' in type I8, which only a quantization_config explains"
    ):
        read(tmp_path)


def test_a_head_of_another_shape_or_with_nan_is_a_damaged_checkpoint(tmp_path: Path) -> None:
    save_with_head(tmp_path, "LlamaForCausalLM")
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    save_file(whole | {"lm_head.weight": torch.zeros(7, D_MODEL)}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model.safetensors holds 'lm_head.weight' of shape \(7, 16\), expected"):
        read(tmp_path)
    save_file(whole | {"model.norm.weight": torch.full((D_MODEL,), torch.nan)}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"holds NaN or infinite numbers in 'model.norm.weight'"):
        read(tmp_path)


def test_an_unknown_hook_is_an_error_of_the_hook(tmp_path: Path) -> None:
    save_with_head(tmp_path, "LlamaForCausalLM")
    with pytest.raises(HookError, match=r"layers\.7"):
        read(tmp_path, "model.layers.7")
