"""The model up to the deepest hook: the right tensors, nothing computed beyond, no neighbour that matters."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, BartConfig, DebertaV2Config, LlamaForCausalLM, MixtralConfig

from extraction_assets.engine.chunk_pass.forward import forward_pass
from extraction_assets.engine.file_boundary import CheckpointError
from extraction_assets.engine.models.files.local_checkpoint import UntrustedCodeError
from extraction_assets.engine.models.language_model import (
    HookError,
    LanguageModel,
    context_length,
    load_language_model,
    probe_hooks,
    repeated_blocks,
)
from extraction_assets.engine.models.tokenizers.tokenizer import load_tokenizer
from extraction_assets.engine.shapes import Samples
from extraction_assets_tests import tiny
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import FAMILIES
from extraction_assets_tests.own_code import change_json, make_own_model

T = 12
SMALL: dict[str, Any] = {"vocab_size": 9, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "max_position_embeddings": 8, "pad_token_id": 0}
HOOKS = {"llama": "layers.1", "gpt2": "h.1", "gpt_neox": "layers.0", "bert": "encoder.layer.1"}


@pytest.fixture(params=HOOKS)
def any_model(request: pytest.FixtureRequest, llama: str, other_models: dict[str, str]) -> LanguageModel:
    """A tiny model of each architecture with one hook."""
    return load_language_model(local({"llama": llama, **other_models}[request.param]), [HOOKS[request.param]])


def make_samples(lengths: list[int], seed: int = 0) -> Samples:
    """Samples of random tokens with these lengths; what stands at padding differs between seeds."""
    ids = torch.randint(0, 50, (len(lengths), T), generator=torch.Generator().manual_seed(seed))
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    return Samples(ids, mask, mask, 0)


def run(model: LanguageModel, samples: Samples) -> dict[str, Tensor]:
    return model.activations(samples.token_ids, samples.attention_mask)


# Which tensor


def test_a_hook_may_carry_the_wrappers_prefix(llama: str) -> None:
    short, long = "layers.1", "model.layers.1"
    samples = make_samples([T, 5])
    one, other = (run(load_language_model(local(llama), [hook]), samples)[hook] for hook in (short, long))
    assert torch.equal(one, other)


def test_a_model_with_its_head_takes_hooks_with_and_without_prefix(llama: str) -> None:
    samples, whole = make_samples([T]), LlamaForCausalLM.from_pretrained(llama, dtype=torch.float32)
    outputs = run(LanguageModel(whole, ["layers.0", "model.layers.0"]), samples)
    assert torch.equal(outputs["layers.0"], outputs["model.layers.0"])
    assert torch.equal(outputs["layers.0"], run(load_language_model(local(llama), ["layers.0"]), samples)["layers.0"])


@pytest.mark.parametrize(
    ("name", "hooks"),
    [
        ("llama", ["layers.0", "layers.1"]),
        ("gpt2", ["h.0"]),
        ("gpt_neox", ["layers.0"]),
        ("bert", ["encoder.layer.0", "encoder.layer.1"]),
    ],
)
def test_hooks_give_the_full_models_hidden_states(
    name: str, hooks: list[str], llama: str, other_models: dict[str, str]
) -> None:
    path, samples = {"llama": llama, **other_models}[name], make_samples([T, T])
    full = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    with torch.inference_mode():
        states = full(input_ids=samples.token_ids, output_hidden_states=True).hidden_states
    outputs = run(load_language_model(local(path), hooks), samples)
    for layer, hook in enumerate(hooks, 1):
        torch.testing.assert_close(outputs[hook], states[layer], rtol=1e-6, atol=1e-6)


def test_hooks_come_in_any_order_and_each_once(llama: str) -> None:
    model = load_language_model(local(llama), ["layers.1", "layers.0.mlp", "layers.1"])
    outputs = run(model, make_samples([T]))
    assert model.hooks == ("layers.1", "layers.0.mlp")
    assert set(outputs) == set(model.hooks)


def test_calls_do_not_see_each_others_outputs(llama: str) -> None:
    model = load_language_model(local(llama), ["layers.0"])
    first = run(model, make_samples([T], seed=1))["layers.0"]
    kept = first.clone()
    second = run(model, make_samples([T], seed=2))["layers.0"]
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)


# What is never computed


def test_nothing_after_the_deepest_hook_runs(llama: str) -> None:
    whole = LlamaForCausalLM.from_pretrained(llama, dtype=torch.float32)
    ran: list[str] = []
    model = LanguageModel(whole, ["model.layers.0", "model.layers.0.self_attn"])
    run(model, make_samples([T]))  # the first batch is watched to the end
    later = {"layer 1": whole.model.layers[1], "layer 2": whole.model.layers[2], "norm": whole.model.norm}
    for name, module in {**later, "head": whole.lm_head, "layer 0": whole.model.layers[0]}.items():
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
    run(model, make_samples([T]))
    assert ran == ["layer 0"]


def test_loading_leaves_out_the_head(llama: str) -> None:
    model = load_language_model(local(llama), ["layers.0"])
    assert not [name for name, _ in model.module.named_modules() if "lm_head" in name]
    assert (model.dtype, model.device, model.module.training) == (torch.float32, torch.device("cpu"), False)


def test_no_gradient_is_recorded(llama: str) -> None:
    assert not run(load_language_model(local(llama), ["layers.0"]), make_samples([T]))["layers.0"].requires_grad


def test_a_dtype_may_be_asked_for(llama: str) -> None:
    model = load_language_model(local(llama), ["layers.0"], dtype="bfloat16")
    assert run(model, make_samples([T]))["layers.0"].dtype == torch.bfloat16


def test_no_keys_and_values_are_kept(llama: str) -> None:
    assert not load_language_model(local(llama), ["layers.0"]).module.config.use_cache


# Compiled blocks


@pytest.mark.slow
def test_compiled_blocks_give_the_same_at_every_hook_and_end_at_the_deepest(llama: str) -> None:
    hooks = ["layers.0", "layers.1.mlp", "layers.2"]
    plain, model = (load_language_model(local(llama), hooks) for _ in range(2))
    model.compile_blocks("aot_eager")
    assert (plain.compiled, model.compiled) == (False, True)
    compiled = [hasattr(block.forward, "_torchdynamo_orig_callable") for block in repeated_blocks(model.module)]
    assert compiled == [True, False, True]  # a hook inside a block would be lost in a graph
    assert model.eager_blocks == [1]
    for seed in (1, 2):
        samples = make_samples([T, 3], seed=seed)
        torch.testing.assert_close(run(model, samples), run(plain, samples))


def test_the_repeated_blocks_are_those_of_the_text_beside_more_of_images() -> None:
    with torch.device("meta"):
        model: Any = AutoModel.from_config(FAMILIES["gemma3"].config())
    assert len(model.vision_tower.encoder.layers) > len(model.language_model.layers)
    assert repeated_blocks(model) == list(model.language_model.layers)


def test_the_repeated_blocks_are_the_longest_list(llama: str) -> None:
    model = load_language_model(local(llama), ["layers.0"]).module
    assert repeated_blocks(model) == list(model.layers)
    assert repeated_blocks(torch.nn.Linear(1, 1)) == []


# Padding, slots and neighbours


def test_padding_on_the_right_does_not_change_real_tokens(any_model: LanguageModel) -> None:
    [hook], lengths = any_model.hooks, [3, 12, 7, 1]
    one = run(any_model, make_samples(lengths))[hook]
    samples = make_samples(lengths)
    samples.token_ids[~samples.attention_mask] = 17
    other = run(any_model, samples)[hook]
    assert torch.equal(one[samples.attention_mask], other[samples.attention_mask])


def test_a_padded_sample_is_what_it_is_alone_without_padding(any_model: LanguageModel) -> None:
    [hook], samples = any_model.hooks, make_samples([5, T])
    alone = any_model.activations(samples.token_ids[:1, :5], samples.attention_mask[:1, :5])[hook]
    torch.testing.assert_close(run(any_model, samples)[hook][0, :5], alone[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", [[T] * 7, [T, 3, T, 1, 6, T, 2]])
def test_a_sample_is_the_same_in_every_slot_and_company(any_model: LanguageModel, lengths: list[int]) -> None:
    [hook], samples = any_model.hooks, make_samples(lengths)
    expected = forward_pass(any_model, samples, 4)(0, 7)[hook]
    for order in ([6, 5, 4, 3, 2, 1, 0], [3], [0, 2, 5, 3, 1], [4, 4, 4, 4, 6]):
        shuffled = samples._replace(token_ids=samples.token_ids[order], attention_mask=samples.attention_mask[order])
        found = forward_pass(any_model, shuffled, 4)(0, len(order))[hook]
        mask = shuffled.attention_mask
        assert torch.equal(found[mask], expected[order][mask]), order


def test_a_forward_pass_over_a_part_is_that_part(any_model: LanguageModel) -> None:
    [hook], samples = any_model.hooks, make_samples([T, 3, T, 1, 6])
    read = forward_pass(any_model, samples, 2)
    whole, mask = read(0, 5)[hook], samples.attention_mask
    for start, stop in [(0, 1), (1, 4), (3, 5), (4, 5)]:
        assert torch.equal(read(start, stop)[hook][mask[start:stop]], whole[start:stop][mask[start:stop]])


def test_every_forward_pass_has_one_shape_and_never_a_mask_of_ones(any_model: LanguageModel) -> None:
    """With a mask of ones transformers would choose another attention kernel."""
    seen: list[tuple[tuple[int, ...], bool]] = []
    empty: list[bool] = []

    def look(_module: nn.Module, _inputs: Any, named: dict[str, Tensor]) -> None:
        mask = named.get("attention_mask")
        seen.append((tuple(named["input_ids"].shape), mask is not None and bool(mask.all())))
        empty.append(mask is not None and not bool(mask.any(dim=1).all()))  # the softmax of no token is NaN

    any_model.module.register_forward_pre_hook(look, with_kwargs=True)
    for lengths in ([T] * 4, [T] * 7, [3], [T, 1]):
        forward_pass(any_model, make_samples(lengths), 4)(0, len(lengths))
    assert not any(empty)
    assert set(seen) == {((4 if any_model.is_causal else 5, T), False)}


def test_causal_models_are_distinguished_from_others(llama: str, other_models: dict[str, str]) -> None:
    causal = {
        name: load_language_model(local(path), [HOOKS[name]]).is_causal
        for name, path in {"llama": llama, **other_models}.items()
    }
    assert causal == {"llama": True, "gpt2": True, "gpt_neox": True, "bert": False}


# Widths before work


@pytest.mark.parametrize("name", HOOKS)
def test_widths_are_known_without_weights(name: str, llama: str, other_models: dict[str, str], tmp_path: Path) -> None:
    shutil.copy(Path({"llama": llama, **other_models}[name], "config.json"), tmp_path)
    assert probe_hooks(local(tmp_path), [HOOKS[name]]) == {HOOKS[name]: 16}


def test_a_mixture_of_experts_has_widths_without_weights(tmp_path: Path) -> None:
    MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=2).save_pretrained(tmp_path)
    hooks = ["layers.1", "layers.0.mlp.input"]
    assert probe_hooks(local(tmp_path), hooks) == dict.fromkeys(hooks, 16)


def test_a_model_that_looks_at_numbers_is_loaded_to_learn_widths(tmp_path: Path) -> None:
    config = DebertaV2Config(**SMALL)
    config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        probe_hooks(local(tmp_path), ["encoder.layer.1"])
    AutoModel.from_config(config).save_pretrained(tmp_path)
    assert probe_hooks(local(tmp_path), ["encoder.layer.1"]) == {"encoder.layer.1": 16}


def test_widths_of_inner_modules_are_their_own(llama: str) -> None:
    hooks = ["layers.0", "model.layers.2.mlp.gate_proj"]
    expected = {"layers.0": tiny.D_MODEL, "model.layers.2.mlp.gate_proj": 32}
    assert probe_hooks(local(llama), hooks) == load_language_model(local(llama), hooks).hook_widths() == expected


# Hooks that cannot be read


class Toy(nn.Module):
    """A model with modules that an SAE cannot read."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.unused = nn.Linear(1, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return self.inner(input_ids)


class Wrap(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, ids: Tensor) -> Any:
        return {"dict": {"hidden": ids}, "flat": ids.float(), "tuple": (ids.float()[..., None], None)}[self.kind]


def test_an_unknown_hook_lists_near_names(llama: str) -> None:
    with pytest.raises(HookError, match=r"no module 'layers\.9'; near names: .*layers\.\d"):
        load_language_model(local(llama), ["layers.9"])
    with pytest.raises(HookError, match=r"near names: model\.layers\.\d"):
        probe_hooks(local(llama), ["model.layers.9"])


def test_an_unknown_hook_like_nothing_still_lists_names(llama: str) -> None:
    with pytest.raises(HookError, match=r"no module '%%'; near names: embed_tokens, "):
        load_language_model(local(llama), ["%%"])


def test_the_model_itself_is_no_hook(llama: str) -> None:
    with pytest.raises(HookError, match="no module ''"):
        load_language_model(local(llama), [""])


def test_a_hook_that_gives_no_tensor_is_an_error() -> None:
    with pytest.raises(HookError, match="hook 'inner' gives a dict, not a tensor"):
        run(LanguageModel(Toy(Wrap("dict")), ["inner"]), make_samples([T]))


def test_a_hook_whose_output_has_no_width_is_an_error() -> None:
    with pytest.raises(HookError, match=r"shape \(1, 12\), expected \[samples, positions, width\] = \[1, 12, …\]"):
        run(LanguageModel(Toy(Wrap("flat")), ["inner"]), make_samples([T]))


def test_a_hook_that_never_runs_is_an_error() -> None:
    with pytest.raises(HookError, match="hook 'unused' is part of the model but did not run"):
        run(LanguageModel(Toy(Wrap("tuple")), ["inner", "unused"]), make_samples([T]))


def test_the_first_tensor_of_a_tuple_is_the_output() -> None:
    assert run(LanguageModel(Toy(Wrap("tuple")), ["inner"]), make_samples([T]))["inner"].shape == (1, T, 1)


# Checkpoint files


# Code that comes with a model


@pytest.fixture
def with_code(llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return str(make_own_model(llama, tmp_path / "own", monkeypatch))


@pytest.mark.parametrize(
    "use",
    [
        lambda path: load_language_model(local(path), ["layers.0"]),
        lambda path: probe_hooks(local(path), ["layers.0"]),
        lambda path: context_length(local(path)),
        lambda path: load_tokenizer(local(path)),
    ],
)
def test_code_of_a_models_own_is_not_run_unasked(use: Any, with_code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a person was asked"))
    before = set(sys.modules)
    message = rf"{with_code} cannot be loaded .* set language_model\.trust_remote_code to true if you trust it"
    with pytest.raises(UntrustedCodeError, match=message):
        use(with_code)
    assert not [name for name in set(sys.modules) - before if "own_llama" in name]


def test_trusted_code_loads_model_and_tokenizer(with_code: str, llama: str) -> None:
    samples = make_samples([T, 5])
    model = load_language_model(local(with_code, trust_remote_code=True), ["layers.1"])
    assert type(model.module).__name__ == "OwnModel"
    expected = run(load_language_model(local(llama), ["layers.1"]), samples)["layers.1"]
    assert torch.equal(run(model, samples)["layers.1"], expected)
    assert probe_hooks(local(with_code, trust_remote_code=True), ["layers.1.input"]) == {"layers.1.input": 16}
    assert context_length(local(with_code, trust_remote_code=True)) == 64
    tokenizer = load_tokenizer(local(with_code, trust_remote_code=True))
    assert type(tokenizer).__name__ == "OwnTokenizer"
    assert tokenizer("fox").input_ids == load_tokenizer(local(llama))("fox").input_ids


# Attention that looks ahead


def test_a_decoder_made_an_encoder_is_not_causal(llama: str, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path, dirs_exist_ok=True)
    change_json(tmp_path / "config.json", is_causal=False)
    model, samples = load_language_model(local(tmp_path), ["layers.2"]), make_samples([5, T])
    assert not model.is_causal
    alone = model.activations(samples.token_ids[:1, :5], samples.attention_mask[:1, :5])["layers.2"]
    torch.testing.assert_close(run(model, samples)["layers.2"][0, :5], alone[0], rtol=1e-5, atol=1e-6)


def test_an_encoder_beside_a_decoder_makes_a_model_not_causal() -> None:
    sizes = {f"{part}_{size}": 1 for part in ("encoder", "decoder") for size in ("layers", "attention_heads")}
    widths = {"d_model": 4, "encoder_ffn_dim": 4, "decoder_ffn_dim": 4}
    both = AutoModel.from_config(BartConfig(vocab_size=9, max_position_embeddings=8, **sizes, **widths))
    assert not LanguageModel(both, []).is_causal
    assert LanguageModel(both.decoder, ["layers.0.self_attn"]).hooks == ("layers.0.self_attn",)
