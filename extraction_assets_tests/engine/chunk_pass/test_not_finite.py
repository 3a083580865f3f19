"""Numbers that are not finite: named where they count, ignored where they do not."""

import pytest
import torch

from extraction_assets.engine.chunk_pass.context import NonFiniteError
from extraction_assets.engine.chunk_pass.forward import (
    forward_pass,
)
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.chunk_pass.build import (
    SAMPLES,
    SETTINGS,
    assert_same_saes,
    at,
    run_pass,
    with_values,
)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_a_hook_output_that_is_not_finite_names_hook_sae_and_sample(
    value: float, size: int, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    message = r"output of hook 'layers\.1', which SAE 'jumprelu' reads, holds a NaN .* in sample 1022, position 4"
    with pytest.raises(NonFiniteError, match=message):
        run_pass(with_values(expected, at(22, 4), value), tasks, size=size)


@pytest.mark.parametrize("name", ["standard", "jumprelu", "topk", "gated"])
@pytest.mark.parametrize("keep_features", [False, True])
def test_each_architecture_notices_a_hook_output_that_is_not_finite(
    name: str, keep_features: bool, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    (task,) = [task for task in tasks if task.name == name]
    read = with_values(expected, at(22, 4), float("nan"), task.hook)
    message = f"hook '{task.hook}', which SAE '{name}' reads, holds a NaN or an infinity in sample 1022, position 4"
    with pytest.raises(NonFiniteError, match=message):
        run_pass(read, [task], settings=SETTINGS._replace(keep_features=keep_features))


@pytest.mark.parametrize("stored", [False, True])
def test_a_hook_that_no_sae_encodes_is_looked_at_directly(
    stored: bool, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    """Neither a hook without SAEs nor one whose SAEs have stored features is encoded."""
    features = expected.saes["jumprelu"].features
    own = [tasks[1]._replace(stored_features=features)] if stored else [tasks[0]]
    message = r"the output of hook 'layers\.1' holds a NaN or an infinity in sample 1022, position 4"
    with pytest.raises(NonFiniteError, match=message):
        run_pass(with_values(expected, at(22, 4), float("nan")), own)


def test_the_first_of_several_broken_samples_is_named(tasks: list[SaeTask], expected: ChunkResult) -> None:
    with pytest.raises(NonFiniteError, match="in sample 1018, position 5"):
        run_pass(with_values(expected, at(22, 4) | at(18, 6) | at(18, 5), float("nan")), tasks, size=64)


def test_a_pre_activation_that_overflows_names_sae_hook_and_sample(tasks: list[SaeTask], expected: ChunkResult) -> None:
    message = r"pre-activations of SAE 'jumprelu' at 'layers\.1' holds a NaN or an infinity in sample 1018, position 5"
    with pytest.raises(NonFiniteError, match=message):
        run_pass(with_values(expected, at(18, 5), 3e38), tasks)


def test_a_model_with_broken_weights_is_noticed(llama: str, tasks: list[SaeTask]) -> None:
    broken = load_language_model(local(llama), ["layers.0", "layers.1"])
    with torch.no_grad():
        broken.module.layers[1].mlp.down_proj.weight[3] = float("nan")  # type: ignore[index]
    with pytest.raises(NonFiniteError, match=r"hook 'layers\.1', .* a NaN or an infinity in sample 1001, position 1"):
        run_pass(forward_pass(broken, SAMPLES, 4), tasks)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.parametrize("vectorized", [True, False])
def test_padding_may_hold_anything(value: float, vectorized: bool, tasks: list[SaeTask], expected: ChunkResult) -> None:
    read = with_values(expected, ~SAMPLES.attention_mask, value)
    assert_same_saes(run_pass(read, tasks, settings=SETTINGS._replace(vectorized=vectorized)), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tokens_that_do_not_count_may_hold_anything(value: float, tasks: list[SaeTask], expected: ChunkResult) -> None:
    read = with_values(expected, SAMPLES.attention_mask & ~SAMPLES.counted, value)
    result = run_pass(read, tasks)
    for name, own in result.saes.items():
        assert_same(own.table, expected.saes[name].table)
        assert_same(own.statistics, expected.saes[name].statistics)


@pytest.mark.parametrize("keep_features", [False, True])
def test_kept_features_say_whether_all_their_tokens_are_finite(
    keep_features: bool, tasks: list[SaeTask], expected: ChunkResult
) -> None:
    settings = SETTINGS._replace(keep_features=keep_features)
    read = with_values(expected, SAMPLES.attention_mask & ~SAMPLES.counted, float("nan"))
    found = {name: own.all_finite for name, own in run_pass(read, tasks, settings=settings).saes.items()}
    assert found["standard"] is found["gated"] is True
    assert found["jumprelu"] is found["topk"] is not keep_features
    assert all(own.all_finite for own in expected.saes.values())
