"""Hook names against full hidden states and against the arithmetic of a block, on a tiny model of every family."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from transformers import AutoModel

from extraction_assets.engine.models.hooks.hook import HookError
from extraction_assets.engine.models.hooks.sites import first_tensor
from extraction_assets.engine.models.hooks.transformer_lens_names import FAMILIES as KNOWN
from extraction_assets.engine.models.hooks.transformer_lens_names import family_of
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model, probe_hooks
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import D_MODEL, FAMILIES, NUM_BLOCKS, VOCABULARY, Layout, make_model

T, LENGTHS = 12, [12, 5, 9, 1]
SEQUENTIAL = [name for name, layout in FAMILIES.items() if layout.kind == "sequential"]
PARALLEL = [name for name, layout in FAMILIES.items() if layout.kind == "parallel"]
DECODERS = SEQUENTIAL + PARALLEL
ENCODERS = [name for name in FAMILIES if name not in DECODERS]
RMS = [name for name in SEQUENTIAL if not name.startswith(("gpt2", "gpt_neox"))]

token_ids = torch.randint(3, VOCABULARY - 2, (len(LENGTHS), T), generator=torch.Generator().manual_seed(0))
mask = torch.arange(T) < torch.tensor(LENGTHS)[:, None]


class Run(NamedTuple):
    """One forward pass of a family, by hooks and in full."""

    path: str
    layout: Layout
    full: nn.Module
    """The whole model as transformers loads it."""
    states: tuple[Tensor, ...]
    """Its hidden states, computed with the attention mask."""
    hooked: dict[str, Tensor]
    """Every TransformerLens name of every block, and dotted paths of what stands around them."""

    def at(self, name: str, block: int) -> Tensor:
        return self.hooked[f"blocks.{block}.{name}"]

    def attention(self, block: int) -> Tensor:
        """What a block's attention adds to the stream."""
        return self.at("linear_attn.hook_out" if block in self.layout.linear else "hook_attn_out", block)

    def module(self, inner: str, block: int) -> Any:
        return self.full.get_submodule(f"{self.layout.blocks}.{block}.{inner}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    folder = tmp_path_factory.mktemp("families")

    @cache
    def make(family: str) -> Run:
        path, layout = make_model(folder / family, family), FAMILIES[family]
        attention = "eager" if family == "gemma2" else None  # transformers before 5.22 leaves out the cap otherwise
        full = (
            AutoModel.from_pretrained(path, dtype=torch.float32, attn_implementation=attention)
            .eval()
            .requires_grad_(False)
        )
        with torch.inference_mode():
            states = full(input_ids=token_ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        model = load_language_model(local(path), names_of(full))
        return Run(path, layout, full, states, model.activations(token_ids, mask))

    return make


def names_of(model: Any) -> list[str]:
    """Every TransformerLens name that a model has."""
    family = family_of(model.config.get_text_config())
    assert family
    config = model.config.get_text_config()
    inner = [f"blocks.{block}.{name}" for block in range(NUM_BLOCKS) for name in family.in_block(config, block).points]
    return inner + ["hook_embed"] * (family.hook_embed is not None)


def same(one: Tensor, other: Tensor) -> None:
    """Equal at real tokens, to float tolerance."""
    assert one.shape == other.shape
    torch.testing.assert_close(one[mask], other[mask], rtol=1e-5, atol=1e-5)


def add_norm(stream: Tensor, norm: Any) -> Tensor:
    return layer_norm(stream, (D_MODEL,), norm.weight, norm.bias, norm.eps)


# Against full hidden states


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_before_and_behind_each_block_is_the_full_models(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    assert len(passed.states) == NUM_BLOCKS + 1
    for block in range(NUM_BLOCKS):
        same(passed.at("hook_resid_pre", block), passed.states[block])
    for block in range(NUM_BLOCKS - 1):
        same(passed.at("hook_resid_post", block), passed.states[block + 1])
    last = passed.at("hook_resid_post", NUM_BLOCKS - 1)
    norm = passed.layout.final_norm
    same(passed.full.get_submodule(norm)(last) if norm else last, passed.states[NUM_BLOCKS])


@pytest.mark.parametrize("family", FAMILIES)
def test_dotted_paths_of_a_block_are_its_input_and_output(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    path = f"{passed.layout.blocks}.1"
    outputs = load_language_model(local(passed.path), [f"{path}.input", path]).activations(token_ids, mask)
    same(outputs[f"{path}.input"], passed.states[1])
    same(outputs[path], passed.states[2])


@pytest.mark.parametrize("family", DECODERS)
def test_the_embedding_is_what_the_first_block_reads_less_positions(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    positions = passed.full.wpe(torch.arange(T)) if family == "gpt2" else 0
    same(passed.hooked["hook_embed"] + positions, passed.states[0])


# Against the arithmetic of a block


@pytest.mark.parametrize("family", DECODERS)
def test_attention_and_mlp_are_what_is_added_to_the_stream(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    for block in range(NUM_BLOCKS):
        added = passed.attention(block) + passed.at("hook_mlp_out", block)
        same(passed.at("hook_resid_pre", block) + added, passed.at("hook_resid_post", block))


@pytest.mark.parametrize("family", SEQUENTIAL)
def test_the_middle_of_a_block_is_the_stream_between_attention_and_mlp(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    for block in range(NUM_BLOCKS):
        middle = passed.at("hook_resid_mid", block)
        same(passed.at("hook_resid_pre", block) + passed.attention(block), middle)
        same(passed.at("hook_mlp_in", block), middle)
        normed = passed.module(passed.layout.second_norm, block)(middle)
        same(normed, passed.at("mlp.hook_in", block))
        mlp = first_tensor(passed.module("mlp", block)(normed))  # gpt-oss gives the router's scores beside it
        same(mlp, passed.at("mlp.hook_out", block))
        behind = passed.layout.behind
        same(passed.module(behind[1], block)(mlp) if behind else mlp, passed.at("hook_mlp_out", block))


@pytest.mark.parametrize("family", PARALLEL)
def test_parallel_blocks_read_the_stream_twice_and_have_no_middle(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    same(passed.at("hook_mlp_in", 1), passed.states[1])
    same(passed.module("input_layernorm", 1)(passed.states[1]), passed.at("ln1.hook_normalized", 1))
    same(passed.at("ln2.hook_normalized", 1), passed.at("mlp.hook_in", 1))
    same(passed.module("mlp", 1)(passed.at("mlp.hook_in", 1)), passed.at("hook_mlp_out", 1))
    with pytest.raises(
        HookError, match="attention and MLP of its blocks read the same stream, so no stream lies between"
    ):
        probe_hooks(local(passed.path), ["blocks.1.hook_resid_mid"])


@pytest.mark.parametrize("family", ENCODERS)
def test_encoders_norm_the_stream_behind_each_addition(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    for block in range(NUM_BLOCKS):
        summed = passed.at("hook_resid_pre", block) + passed.at("hook_attn_out", block)
        middle = add_norm(summed, passed.module("attention.output.LayerNorm", block))
        same(middle, passed.at("mlp.hook_in", block))
        same(middle, passed.at("ln1.hook_normalized", block))
        behind = add_norm(middle + passed.at("hook_mlp_out", block), passed.module("output.LayerNorm", block))
        same(behind, passed.at("hook_resid_post", block))
        same(behind, passed.at("ln2.hook_normalized", block))


@pytest.mark.parametrize("family", FAMILIES)
def test_z_is_what_the_heads_give_to_the_output_projection(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    for block in set(range(NUM_BLOCKS)) - set(passed.layout.linear):
        z, projection = passed.at("attn.hook_z", block), passed.module(passed.layout.projection, block)
        assert z.shape == (len(LENGTHS), T, passed.layout.d_z)
        weight = projection.weight if family == "gpt2" else projection.weight.T
        projected = z @ weight + (0 if projection.bias is None else projection.bias)
        behind = passed.layout.behind
        same(passed.module(behind[0], block)(projected) if behind else projected, passed.at("hook_attn_out", block))


def test_z_is_attention_weights_times_values(run: Callable[[str], Run]) -> None:
    passed = run("llama")
    eager = AutoModel.from_pretrained(passed.path, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        weights = eager(input_ids=token_ids, output_attentions=True).attentions[1]  # [B, 4, T, T]
    block = passed.full.get_submodule("layers.1")
    values = block.self_attn.v_proj(block.input_layernorm(passed.states[1])).view(len(LENGTHS), T, 2, 6)
    heads = torch.einsum("bhtu,buhd->bthd", weights, values.repeat_interleave(2, dim=2))
    same(passed.at("attn.hook_z", 1), heads.flatten(2))


@pytest.mark.parametrize("family", RMS)
def test_normalized_is_an_rms_norm_before_its_gain(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    for name, norm, stream in [
        ("ln1", "input_layernorm", "hook_resid_pre"),
        ("ln2", passed.layout.second_norm, "hook_resid_mid"),
    ]:
        normalized, module = passed.at(f"{name}.hook_normalized", 2), passed.module(norm, 2)
        gain = module.weight + family.startswith(("gemma", "qwen3_5"))  # whose gains are stored less one
        same(normalized * gain, module(passed.at(stream, 2)))


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox_sequential"])
def test_normalized_is_the_output_of_a_layer_norm(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    first = "ln_1" if family == "gpt2" else "input_layernorm"
    same(passed.module(first, 1)(passed.states[1]), passed.at("ln1.hook_normalized", 1))
    same(
        passed.module(passed.layout.second_norm, 1)(passed.at("hook_resid_mid", 1)), passed.at("ln2.hook_normalized", 1)
    )


def test_every_known_family_is_tested(run: Callable[[str], Run]) -> None:
    assert {run(name).full.config.get_text_config().model_type for name in FAMILIES} == set(KNOWN)


# What is run, and what is kept


@pytest.mark.parametrize("family", FAMILIES)
def test_an_input_hook_ends_the_pass_before_its_block(family: str, run: Callable[[str], Run]) -> None:
    passed, ran = run(family), list[int]()
    model = load_language_model(local(passed.path), ["blocks.1.hook_resid_pre", "blocks.0.hook_resid_post"])
    model.activations(token_ids, mask)  # the first batch is watched to the end
    for block in range(NUM_BLOCKS):
        module = model.module.get_submodule(f"{passed.layout.blocks}.{block}")
        module.register_forward_hook(lambda *_, block=block: ran.append(block))
    model.activations(token_ids, mask)
    assert ran == [0]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_module_changes_what_stands_at_a_hook(family: str, run: Callable[[str], Run]) -> None:
    """A hook keeps the tensor itself, not a copy of it."""
    passed, seen = run(family), list[tuple[str, Tensor, Tensor]]()
    model = LanguageModel(AutoModel.from_pretrained(passed.path, dtype=torch.float32), [])

    def look(name: str) -> Callable[..., None]:
        return lambda *passed: seen.extend(
            (name, tensor, tensor.clone()) for tensor in _tensors(passed) if tensor.is_floating_point()
        )

    for name, module in model.module.named_modules():
        module.register_forward_hook(look(name))
        module.register_forward_pre_hook(look(name), with_kwargs=True)
    model.activations(token_ids, mask)
    assert len(seen) > 20
    assert [name for name, tensor, then in seen if not torch.equal(tensor, then)] == []


def _tensors(passed: Any) -> list[Tensor]:
    if isinstance(passed, Tensor):
        return [passed]
    items = passed.values() if isinstance(passed, dict) else passed if isinstance(passed, (tuple, list)) else []
    return [tensor for item in items for tensor in _tensors(item)]


@pytest.mark.parametrize("family", FAMILIES)
def test_widths_of_all_hooks_are_known_without_weights(family: str, run: Callable[[str], Run], tmp_path: Path) -> None:
    passed = run(family)
    shutil.copy(Path(passed.path, "config.json"), tmp_path)
    hooks = [*names_of(passed.full), f"{passed.layout.blocks}.2", f"{passed.layout.blocks}.1.input"]
    widths = probe_hooks(local(tmp_path), hooks)
    assert widths == {hook: passed.layout.d_z if hook.endswith("hook_z") else D_MODEL for hook in hooks}


@pytest.mark.parametrize("family", FAMILIES)
def test_decoders_are_causal_and_encoders_are_not(family: str, run: Callable[[str], Run]) -> None:
    passed = run(family)
    model = load_language_model(local(passed.path), ["blocks.2.hook_resid_post"])
    later = token_ids.clone()
    later[:, -1] += 1
    one, other = (
        model.activations(ids, torch.ones_like(mask))["blocks.2.hook_resid_post"] for ids in (token_ids, later)
    )
    assert model.is_causal == (family in DECODERS) == torch.equal(one[:, :-1], other[:, :-1])
