"""Hooks of published SAEs resolve in the class of their model, and give what a plain capture in that class does."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from torch import Tensor

from extraction_assets.engine.models.language_model import load_language_model, probe_hooks
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import D_MODEL, NUM_BLOCKS, VOCABULARY, save_model
from extraction_assets_tests.engine.models.published import PUBLISHED, classes_of, registry

LENGTHS = [12, 5, 9, 1]
mask = torch.arange(12) < torch.tensor(LENGTHS)[:, None]
token_ids = torch.where(
    mask, torch.randint(3, VOCABULARY - 2, mask.shape, generator=torch.Generator().manual_seed(0)), 0
)


class Run(NamedTuple):
    """One batch through the published class itself and through our hooks."""

    whole: Any
    plain: dict[str, Tensor]
    """Module's path and side -> tensor, captured by hooks of torch in a pass of the whole class."""
    states: tuple[Tensor, ...]
    """Its ``output_hidden_states``."""
    ours: dict[str, Tensor]
    folder: Path


def capture_all(whole: Any) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """What every module of ``whole`` is called with and gives in one plain pass, cloned, and its hidden states."""
    found: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        value = value[0] if isinstance(value, tuple) and value else value
        if isinstance(value, Tensor):
            found[name] = value.clone()

    def watch(path: str, module: Any) -> None:
        module.register_forward_hook(lambda _m, _i, out: keep(f"{path}.output", out))
        module.register_forward_pre_hook(
            lambda _m, args, named: keep(f"{path}.input", args or named.get("hidden_states")), with_kwargs=True
        )

    for path, module in whole.named_modules():
        watch(path, module)
    with torch.inference_mode():
        output = whole(input_ids=token_ids, attention_mask=mask.long(), output_hidden_states=True)
    return found, output.hidden_states


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    folder = tmp_path_factory.mktemp("published")

    @cache
    def make(name: str) -> Run:
        of_class = getattr(transformers, name)
        whole = save_model(of_class._from_config, folder / name, PUBLISHED[name].family)
        assert whole.config.architectures == [name] or name in repr(type(whole))
        hooks = [hook for block in range(NUM_BLOCKS) for hook in hooks_of(name, block)]
        ours = load_language_model(local(folder / name), hooks).activations(token_ids, mask)
        return Run(whole, *capture_all(whole), ours, folder / name)

    return make


def hooks_of(name: str, block: int) -> dict[str, str]:
    """{hook: module and side} of one block."""
    return {hook.replace("N", str(block)): place for hook, place in PUBLISHED[name].hooks.items()}


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one[mask], other[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_hook_gives_the_plain_capture_of_the_class(name: str, run: Callable[[str], Run]) -> None:
    found = run(name)
    for block in range(NUM_BLOCKS):
        for hook, place in hooks_of(name, block).items():
            same(found.ours[hook], found.plain[f"{PUBLISHED[name].blocks}.{block}.{place}"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_stream_is_that_of_output_hidden_states(name: str, run: Callable[[str], Run]) -> None:
    found = run(name)
    for block in range(NUM_BLOCKS - 1):  # behind the last one transformers norms it
        for hook, place in hooks_of(name, block).items():
            if place in ("input", "output"):
                same(found.ours[hook], found.states[block + (place == "output")])


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_name_in_the_class_itself_is_the_same_tensor(name: str, run: Callable[[str], Run]) -> None:
    found, blocks = run(name), PUBLISHED[name].blocks
    whole_names = {hook: f"{blocks}.1.{place}" for hook, place in hooks_of(name, 1).items()}
    outputs = load_language_model(local(found.folder), list(whole_names.values())).activations(token_ids, mask)
    for hook, whole_name in whole_names.items():
        assert torch.equal(outputs[whole_name], found.ours[hook])


@pytest.mark.parametrize("name", PUBLISHED)
def test_widths_are_known_before_weights_are_read(name: str, run: Callable[[str], Run]) -> None:
    found = run(name)
    assert probe_hooks(local(found.folder), list(found.ours)) == {
        hook: output.shape[-1] for hook, output in found.ours.items()
    }


# Gemma 2, whose SAEs read what no module gives


def gemma2(run: Callable[[str], Run], hook: str) -> tuple[Run, Tensor]:
    found = run("Gemma2ForCausalLM")
    [output] = load_language_model(local(found.folder), [hook]).activations(token_ids, mask).values()
    return found, output


def test_the_embedding_of_gemma_is_scaled_by_the_root_of_its_width(run: Callable[[str], Run]) -> None:
    """As TransformerLens has it, so that SAELens divides the weights of Gemma Scope's embedding SAEs by that."""
    found, output = gemma2(run, "hook_embed")
    same(output, found.whole.get_input_embeddings().weight[token_ids] * D_MODEL**0.5)
    same(output, found.states[0])


def test_transcoders_of_gemma_2_read_the_mlps_norm_without_its_gain(run: Callable[[str], Run]) -> None:
    """Gemma Scope (arXiv:2408.05147v2, page 18) folds the gain into the MLP and reads what stands before it."""
    found, output = gemma2(run, "blocks.1.ln2.hook_normalized")
    stream = found.plain["model.layers.1.pre_feedforward_layernorm.input"]
    same(output, stream / (stream.square().mean(-1, keepdim=True) + 1e-6).sqrt())
    gain = 1 + found.whole.get_submodule("model.layers.1.pre_feedforward_layernorm").weight
    same(output * gain, found.plain["model.layers.1.mlp.input"])


# The registry of sae-lens


def test_every_model_of_the_registry_has_one_class_here() -> None:
    models = {release["model"] for release in registry().values()}
    assert {model: len(classes_of(model)) for model in models} == dict.fromkeys(models, 1)
