"""A sample in a padded batch is what transformers computes for it alone, in every class that SAEs are published for.

With samples longer than sliding windows and than the chunks of linear attention, capped scores, and experts.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from extraction_assets.engine.chunk_pass.forward import forward_pass
from extraction_assets.engine.models.forward.capped_attention import keep_softcap
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.models.padding_check import examine_alone
from extraction_assets.engine.shapes import Samples
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import CAPPED, FAMILIES, NUM_BLOCKS, VOCABULARY, WINDOW, save_model

DECODERS = [name for name, layout in FAMILIES.items() if layout.kind != "post-norm"]
EXPERTS = [name for name in DECODERS if "moe" in name or name == "gpt_oss"]
HOOKS = [f"blocks.{block}.hook_resid_post" for block in range(NUM_BLOCKS)]
TOLERANCE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}


class Saved(NamedTuple):
    folder: Path
    module: Any
    """The model as transformers makes it."""

    def language_model(self) -> LanguageModel:
        return load_language_model(local(self.folder), HOOKS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    folder = tmp_path_factory.mktemp("lengths")
    return cache(lambda family: Saved(folder / family, save_model(AutoModel.from_config, folder / family, family)))


def samples_of(family: str) -> Samples:
    """6 samples, padded on the right with token 0; those of linear attention are longer than its chunks of 64."""
    longest = 80 if FAMILIES[family].linear else 30
    lengths = torch.tensor([longest, 1, longest - 7, 5, longest // 2, longest])
    ids = torch.randint(3, VOCABULARY - 2, (6, longest), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(longest) < lengths[:, None]
    return Samples(torch.where(mask, ids, 0), mask, mask, 0)


@torch.inference_mode()
def stream(module: Any, token_ids: Tensor) -> list[Tensor]:
    """What the blocks give in a plain pass of transformers: [B, T, D] behind each, cloned."""
    inner, found = getattr(module, "language_model", module), list[Tensor]()
    blocks = inner.h if hasattr(inner, "h") else inner.layers
    handles = [
        block.register_forward_hook(
            lambda _m, _i, out: found.append((out[0] if isinstance(out, tuple) else out).clone())
        )
        for block in blocks
    ]
    module(input_ids=token_ids, attention_mask=torch.ones_like(token_ids))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("family", DECODERS)
def test_a_sample_in_a_padded_batch_is_the_sample_alone(family: str, saved: Callable[[str], Saved]) -> None:
    model, samples = saved(family), samples_of(family)
    outputs = forward_pass(model.language_model(), samples, 4)(0, 6)
    for row in range(6):
        length = int(samples.attention_mask[row].sum())
        alone = stream(model.module, samples.token_ids[row : row + 1, :length])
        for hook, expected in zip(HOOKS, alone, strict=True):
            torch.testing.assert_close(outputs[hook][row, :length], expected[0], **TOLERANCE)


@pytest.mark.parametrize("family", DECODERS)
def test_neither_padding_nor_neighbours_take_part(family: str, saved: Callable[[str], Saved]) -> None:
    """Bit for bit, but where the size of an expert's product is the number of tokens that go to it."""
    model, samples = saved(family).language_model(), samples_of(family)
    others = torch.randint(3, VOCABULARY - 2, samples.token_ids.shape, generator=torch.Generator().manual_seed(2))
    others = torch.where(samples.attention_mask & (torch.arange(6) % 2 == 0)[:, None], samples.token_ids, others)
    ours, theirs = (model.activations(ids, samples.attention_mask) for ids in (samples.token_ids, others))
    same = samples.attention_mask[::2]
    bound = 1e-5 if family in EXPERTS else 0.0
    for hook in HOOKS:
        torch.testing.assert_close(ours[hook][::2][same], theirs[hook][::2][same], rtol=bound, atol=bound)


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3", "qwen3_moe", "qwen3_5", "qwen3_5_moe", "gpt_oss"])
def test_bfloat16_agrees_with_single_samples(family: str, saved: Callable[[str], Saved]) -> None:
    model, samples = load_language_model(local(saved(family).folder), HOOKS, dtype="bfloat16"), samples_of(family)
    found = examine_alone(model, samples, forward_pass(model, samples, 4)(0, 6))
    assert [one.message for one in found if one.severity == "error"] == []


@pytest.mark.parametrize("family", EXPERTS)
def test_no_token_is_dropped_where_all_go_to_the_same_experts(family: str, saved: Callable[[str], Saved]) -> None:
    model, ids = saved(family), torch.full((8, 20), 7)
    outputs = model.language_model().activations(ids, torch.ones_like(ids).bool())
    for hook, expected in zip(HOOKS, stream(model.module, ids[:1]), strict=True):
        for row in range(8):
            torch.testing.assert_close(outputs[hook][row], expected[0], **TOLERANCE)


@pytest.mark.parametrize("family", [name for name in DECODERS if FAMILIES[name].linear])
def test_linear_attention_remembers_what_lies_before_a_chunk(family: str, saved: Callable[[str], Saved]) -> None:
    model, samples = saved(family).language_model(), samples_of(family)
    changed = samples.token_ids[:1].clone()
    changed[0, 2] += 1
    ours, theirs = (
        model.activations(ids, samples.attention_mask[:1])[HOOKS[0]][0] for ids in (samples.token_ids[:1], changed)
    )
    assert torch.equal(ours[:2], theirs[:2])
    assert not torch.allclose(ours[70:], theirs[70:], rtol=1e-6, atol=1e-7)


def test_a_token_does_not_see_beyond_the_window(saved: Callable[[str], Saved]) -> None:
    model, samples = saved("mistral").language_model(), samples_of("mistral")
    changed = samples.token_ids[:1].clone()
    changed[0, 0] += 1
    ours, theirs = (
        model.activations(ids, samples.attention_mask[:1])[HOOKS[0]][0] for ids in (samples.token_ids[:1], changed)
    )
    window = WINDOW["sliding_window"]
    assert torch.equal(ours[window:], theirs[window:])
    assert not torch.equal(ours[window - 1], theirs[window - 1])


# Capped scores


def capped_z(attention: Any, stream: Tensor, rotary: Any, cap: float) -> Tensor:
    """The heads' outputs of a Gemma 2 attention without a window, by its formula: [1, T, D] -> [1, T, heads * 6]."""
    from transformers.models.gemma2.modeling_gemma2 import apply_rotary_pos_emb

    query, key, value = (
        getattr(attention, f"{name}_proj")(stream).unflatten(-1, (-1, 6)).transpose(1, 2) for name in "qkv"
    )
    query, key = apply_rotary_pos_emb(query, key, *rotary(stream, torch.arange(stream.shape[1])[None]))
    key, value = (one.repeat_interleave(2, dim=1) for one in (key, value))
    scores = cap * torch.tanh(query @ key.mT / 6**0.5 / cap)  # query_pre_attn_scalar is 6
    below = torch.ones(scores.shape[-2:]).tril().bool()
    weights = scores.masked_fill(~below, -torch.inf).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def test_scores_of_gemma_2_are_capped(saved: Callable[[str], Saved]) -> None:
    model, ids = saved("gemma2"), samples_of("gemma2").token_ids[:1]
    read, gives = "layers.1.self_attn.input", "blocks.1.attn.hook_z"  # of a block without a window
    outputs = load_language_model(local(model.folder), [read, gives]).activations(ids, torch.ones_like(ids).bool())
    for cap, is_same in ((CAPPED["attn_logit_softcapping"], True), (1e9, False)):
        expected = capped_z(model.module.layers[1].self_attn, outputs[read], model.module.rotary_emb, cap)
        assert torch.allclose(outputs[gives], expected, rtol=1e-4, atol=1e-5) == is_same


def test_a_model_with_a_cap_does_not_keep_a_kernel_without(saved: Callable[[str], Saved]) -> None:
    """As transformers before 5.22 loads it."""
    model, ids = AutoModel.from_pretrained(saved("gemma2").folder).eval(), samples_of("gemma2").token_ids[:1]
    model.config._attn_implementation = "sdpa"
    keep_softcap(model)
    assert model.config._attn_implementation == "eager"
    torch.testing.assert_close(stream(model, ids), stream(saved("gemma2").module, ids))


def test_a_model_without_a_cap_keeps_its_kernel(saved: Callable[[str], Saved]) -> None:
    for family in ("llama", "gemma3", "gpt2"):
        model = AutoModel.from_pretrained(saved(family).folder)
        keep_softcap(model)
        assert model.config._attn_implementation == "sdpa"
