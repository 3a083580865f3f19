"""A module that runs more than once in a forward pass is read at the run that its hook names, or refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AlbertConfig, AutoModel

from extraction_assets.engine.models.hooks.hook import HookError, Site, resolve_hook
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model, probe_hooks, same_tensor
from extraction_assets.engine.preflight.likely_cause import same_hook_elsewhere
from extraction_assets_tests.engine.checkpoints import local

LAYER = "encoder.albert_layer_groups.0.albert_layers.0"
ids = torch.arange(3, 17).reshape(2, 7)
mask = torch.ones_like(ids).bool()


@pytest.fixture(scope="module")
def albert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four runs of one layer."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "embedding_size": 8, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("albert")
    torch.manual_seed(0)
    AutoModel.from_config(AlbertConfig(vocab_size=20, num_hidden_layers=4, **sizes)).save_pretrained(folder)
    return str(folder)


def states(path: str) -> tuple[Tensor, ...]:
    full = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    with torch.inference_mode():
        return full(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states  # type: ignore[no-any-return]


def test_every_run_is_the_hidden_state_behind_it(albert: str) -> None:
    hooks = [f"{LAYER}[{run}]" for run in range(4)]
    outputs = load_language_model(local(albert), hooks).activations(ids, mask)
    for run, hook in enumerate(hooks):
        torch.testing.assert_close(outputs[hook], states(albert)[run + 1], rtol=1e-5, atol=1e-6)


def test_the_input_of_a_run_is_the_output_of_the_one_before(albert: str) -> None:
    outputs = load_language_model(local(albert), [f"{LAYER}[2].input", f"{LAYER}[1].output"]).activations(ids, mask)
    one, other = outputs.values()
    assert torch.equal(one, other)


def test_a_pass_ends_at_the_run_that_is_asked_for(albert: str) -> None:
    model, ran = load_language_model(local(albert), [f"{LAYER}[1]"]), list[int]()
    model.activations(ids, mask)
    model.module.get_submodule(LAYER).register_forward_pre_hook(lambda *_: ran.append(1))
    model.activations(ids, mask)
    assert len(ran) == 2


@pytest.mark.parametrize("hook", [LAYER, f"albert.{LAYER}.output", f"{LAYER}.input", f"{LAYER}.ffn"])
def test_a_hook_without_a_run_is_refused_with_their_number(hook: str, albert: str) -> None:
    message = r"runs 4 times in a forward pass: name one of its runs, .*\[0\].* to .*\[3\]"
    with pytest.raises(HookError, match=message):
        probe_hooks(local(albert), [hook])
    with pytest.raises(HookError, match=message):
        load_language_model(local(albert), [hook]).activations(ids, mask)


def test_what_the_refusal_suggests_works(albert: str) -> None:
    with pytest.raises(HookError) as caught:
        probe_hooks(local(albert), [f"{LAYER}.input"])
    assert probe_hooks(local(albert), [str(caught.value).rpartition(" to ")[2]]) == {f"{LAYER}[3].input": 16}


def test_a_run_that_is_not_there_is_refused(albert: str) -> None:
    with pytest.raises(HookError, match=r"names run 4 of a module that runs 4 times .* the last one is 3"):
        probe_hooks(local(albert), [f"{LAYER}[4]"])
    with pytest.raises(HookError, match=r"names run 1 of a module that runs once"):
        probe_hooks(local(albert), ["encoder.embedding_hidden_mapping_in[1]"])


def test_the_first_run_of_a_module_that_runs_once_is_that_module(llama: str) -> None:
    outputs = load_language_model(local(llama), ["layers.1", "layers.1[0]"]).activations(ids, mask)
    assert torch.equal(outputs["layers.1"], outputs["layers.1[0]"])
    assert same_tensor(local(llama), "layers.1", "model.layers.1[0]")
    assert same_tensor(local(llama), "layers.1[0]", "layers.2.input")


def test_runs_are_not_one_tensor(albert: str) -> None:
    assert not same_tensor(local(albert), f"{LAYER}[1]", f"{LAYER}[2]")


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (f"{LAYER}.input[2]", rf"behind the module's path: write {LAYER}\[2\]\.input"),
        ("encoder.albert_layer_groups[0]", r"take one of its members, such as encoder\.albert_layer_groups\.0$"),
        (f"{LAYER}[-1]", "near names: .*albert_layers"),
        (f"{LAYER}[x]", "near names: .*albert_layers"),
        (f"{LAYER}[0][1]", "the model has no module|members of a list"),
    ],
)
def test_another_spelling_says_what_to_write(hook: str, message: str, albert: str) -> None:
    with pytest.raises(HookError, match=message):
        probe_hooks(local(albert), [hook])


def test_a_module_called_output_may_have_a_run(bert_model: LanguageModel) -> None:
    found = resolve_hook(bert_model.module, "encoder.layer.0.output[0].input")
    assert found == Site("encoder.layer.0.output", "input", 0)
    assert resolve_hook(bert_model.module, "encoder.layer.0.output[0]") == Site("encoder.layer.0.output", "output", 0)


@pytest.fixture
def bert_model(other_models: dict[str, str]) -> LanguageModel:
    return load_language_model(local(other_models["bert"]), [])


def test_the_same_hook_elsewhere_is_that_of_the_other_runs(albert: str) -> None:
    hook = f"{LAYER}[1].input"
    model = load_language_model(local(albert), [hook])
    model.activations(ids, mask)
    assert same_hook_elsewhere(model, hook) == [f"{LAYER}[{run}].input" for run in (0, 2, 3)]
    with model.also_reading([f"{LAYER}[3]"]):
        assert set(model.activations(ids, mask)) == {hook, f"{LAYER}[3]"}


def test_hooks_that_cannot_be_read_are_left_out_of_a_search(albert: str) -> None:
    model = load_language_model(local(albert), [f"{LAYER}[1]"])
    assert model.find_readable([LAYER, "nothing", f"{LAYER}[2]", "encoder"]) == [f"{LAYER}[2]", "encoder"]


@pytest.mark.slow
def test_a_block_that_runs_often_may_be_compiled(albert: str) -> None:
    hook = "encoder.albert_layer_groups.0[2]"
    plain, model = (load_language_model(local(albert), [hook]) for _ in range(2))
    model.compile_blocks("aot_eager")
    torch.testing.assert_close(model.activations(ids, mask), plain.activations(ids, mask))


def test_widths_are_known_of_runs(albert: str, tmp_path: Path) -> None:
    assert probe_hooks(local(albert), [f"{LAYER}[3].input", f"{LAYER}[0]"]) == {
        f"{LAYER}[3].input": 16,
        f"{LAYER}[0]": 16,
    }
