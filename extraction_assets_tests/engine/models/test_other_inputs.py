"""Hooks that a forward pass over token ids does not compute are refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    CLIPConfig,
    LlavaConfig,
    PaliGemmaConfig,
    SiglipVisionConfig,
    ViTConfig,
    WhisperConfig,
)

from extraction_assets.engine.models.hooks.hook import HookError
from extraction_assets.engine.models.hooks.text_pass import _missing_of_every_token
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model, probe_hooks
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import FAMILIES
from extraction_assets_tests.engine.models.tiny_types import READS_PADDING, TYPES, tiny_config, tiny_model

SMALL: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION: dict[str, Any] = {**SMALL, "image_size": 8, "patch_size": 4}
GEMMA: dict[str, Any] = {**SMALL, "vocab_size": 50, "num_key_value_heads": 2, "head_dim": 8, "model_type": "gemma"}
SOUND: dict[str, Any] = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
SOUND |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 60000}
CONFIGS: dict[str, Callable[[], Any]] = {
    "paligemma": lambda: PaliGemmaConfig(
        text_config=GEMMA, vision_config={**VISION, "model_type": "siglip_vision_model"}, projection_dim=16
    ),
    "gemma3": FAMILIES["gemma3"].config,
    "clip": lambda: CLIPConfig(text_config={**SMALL, "vocab_size": 50}, vision_config=VISION),
    "vit": lambda: ViTConfig(**VISION),
    "siglip": lambda: SiglipVisionConfig(**VISION),
    "whisper": lambda: WhisperConfig(**SOUND),
    "llava": lambda: LlavaConfig(
        text_config=FAMILIES["llama"].config(), vision_config={**VISION, "model_type": "clip_vision_model"}
    ),
    "bart": lambda: tiny_config("bart"),
    "t5": lambda: tiny_config("t5"),
    "blenderbot": lambda: tiny_config("blenderbot"),
}


def saved(folder: Path, name: str) -> str:
    torch.manual_seed(0)
    AutoModel.from_config(CONFIGS[name]()).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("name", "hook", "message"),
    [
        (
            "paligemma",
            "language_model.layers.1",
            "cannot be read: it reads its prompt in both directions and needs an image",
        ),
        ("t5", "decoder.block.1", "is in the decoder of T5Model, whose forward pass needs decoder_input_ids"),
        (
            "bart",
            "model.decoder.layers.1",
            "is in the decoder of BartModel, whose forward pass needs decoder_input_ids",
        ),
        ("blenderbot", "decoder.layers.0.fc1", "is in the decoder of BlenderbotModel"),
        ("gemma3", "vision_tower.encoder.layers.0", r"is in Siglip\w+, which reads pixel_values"),
        ("llava", "vision_tower.encoder.layers.0", r"is in CLIP\w+, which reads pixel_values"),
        ("clip", "vision_model.encoder.layers.0", r"is in CLIP\w+, which reads pixel_values"),
        ("vit", "layers.0", "is in ViTModel, which reads pixel_values, and a corpus gives token ids alone"),
        ("siglip", "encoder.layers.0", r"which reads pixel_values"),
        ("whisper", "encoder.layers.0", r"is in Whisper\w+, which reads input_features"),
        ("whisper", "decoder.layers.0", "is in the decoder of WhisperModel"),
        ("clip", "text_model.encoder.layers.0", "is not reached by a forward pass of CLIPModel over text alone, which"),
        ("gemma3", "multi_modal_projector", "is part of the model but did not run in its forward pass over text"),
    ],
)
def test_a_hook_that_text_does_not_reach_is_refused_by_name(name: str, hook: str, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, name)
    with pytest.raises(HookError, match=message) as caught:
        probe_hooks(local(path), [hook])
    assert repr(hook) in str(caught.value)
    assert len(str(caught.value)) < 400
    with pytest.raises(HookError, match=message):
        model = load_language_model(local(path), [hook])
        model.activations(torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 4).bool())


@pytest.mark.parametrize(
    ("model_type", "hook", "missing"),
    [
        ("layoutlm", "encoder.layer.0", "bbox"),
        ("layoutlmv3", "encoder.layer.0", "bbox"),
        ("lilt", "encoder.layer.0", "bbox"),
        ("bros", "encoder.layer.0", "bbox"),
        ("udop", "encoder.block.0", "bbox"),
        ("markuplm", "encoder.layer.0", "xpath_tags_seq and xpath_subs_seq"),
        ("roc_bert", "encoder.layer.0", "input_shape_ids and input_pronunciation_ids"),
        ("tapas", "encoder.layer.0", "token_type_ids of 7 kinds"),
    ],
)
def test_a_model_that_reads_more_of_every_token_than_its_id_is_refused(
    model_type: str, hook: str, missing: str
) -> None:
    with pytest.raises(HookError, match=rf"its forward pass needs {missing} beside every token, and a corpus gives"):
        LanguageModel(tiny_model(model_type), [hook])


@pytest.mark.parametrize("model_type", ["xlm", "flaubert"])
def test_a_model_of_several_languages_is_refused_if_it_embeds_them(model_type: str) -> None:
    config = tiny_config(model_type)
    config.n_langs, config.use_lang_emb = 2, True
    with pytest.raises(HookError, match="its forward pass needs langs beside every token"):
        LanguageModel(AutoModel.from_config(config), ["embeddings"])
    config.use_lang_emb = False
    assert LanguageModel(AutoModel.from_config(config), ["embeddings"]).hook_widths() == {"embeddings": 16}


@pytest.mark.slow
def test_no_model_of_text_counts_as_one_that_reads_more_of_every_token() -> None:
    for model_type in (*TYPES, *READS_PADDING, "luke", "visual_bert"):
        with torch.device("meta"):
            module = AutoModel.from_config(tiny_config(model_type))
        found = {_missing_of_every_token(module, name) for name, _ in module.named_modules()}
        assert found == {None}, model_type


@pytest.mark.parametrize(("model_type", "hook"), [("t5", "encoder.block.1"), ("bart", "encoder.layers.1")])
def test_the_encoder_beside_a_decoder_is_what_the_encoder_alone_computes(model_type: str, hook: str) -> None:
    module, ids = tiny_model(model_type), torch.randint(5, 60, (2, 7))
    mask = torch.arange(7) < torch.tensor([7, 4])[:, None]
    states = list[torch.Tensor]()
    with torch.inference_mode():
        given = module(input_ids=ids, attention_mask=mask.long(), decoder_input_ids=ids, output_hidden_states=True)
        states.extend(given.encoder_hidden_states)
    model = LanguageModel(module, [hook, f"{hook[:-1]}1.input"])
    torch.testing.assert_close(model.activations(ids, mask)[f"{hook[:-1]}1.input"], states[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["gemma3", "llava"])
def test_the_text_of_a_model_with_images_is_read(name: str, tmp_path: Path) -> None:
    assert set(probe_hooks(local(saved(tmp_path, name)), ["language_model.layers.1"]).values()) == {16}
