"""The guard of the first batch: a sample in a padded batch is what it is alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extraction_assets.engine.chunk_pass.forward import forward_pass
from extraction_assets.engine.models import padding_check
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.models.padding_check import BOUNDS, choose_rows, examine_alone, relative_errors
from extraction_assets.engine.shapes import Samples
from extraction_assets_tests.engine.models.tiny_types import READS_PADDING, tiny_model

T = 24
LENGTHS = [24, 9, 17, 2, 9, 24]
ids = torch.randint(5, 60, (len(LENGTHS), T), generator=torch.Generator().manual_seed(0))
mask = torch.arange(T) < torch.tensor(LENGTHS)[:, None]
samples = Samples(ids, mask, mask, 40)
LAST = {"bert": "encoder.layer.1", "t5": "encoder.block.1", "gpt2": "h.1", "fnet": "encoder.layer.1"}
LAST |= {"convbert": "encoder.layer.1", "mobilebert": "encoder.layer.1", "nystromformer": "encoder.layer.1"}
LAST |= {"yoso": "encoder.layer.1", "bloom": "h.1", "bart": "encoder.layers.1"}


def findings(model: LanguageModel) -> list[Any]:
    return examine_alone(model, samples, forward_pass(model, samples, 3)(0, len(LENGTHS)))


def model_of(model_type: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    return LanguageModel(tiny_model(model_type, dtype), [LAST.get(model_type, "layers.1")])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bert", "bloom", "t5", "bart", "qwen3_moe", "mamba"])
def test_models_of_text_pass(model_type: str, dtype: torch.dtype) -> None:
    found = findings(model_of(model_type, dtype))
    assert [one for one in found if one.severity == "error" or "experts" not in one.message] == []


@pytest.mark.parametrize("model_type", READS_PADDING)
def test_models_in_which_padding_has_a_part_are_refused(model_type: str) -> None:
    (found,) = findings(model_of(model_type))
    assert found.severity == "error"
    assert "gives other numbers for sample 4" in found.message
    assert "99th percentile of" in found.message


def test_without_padding_they_pass() -> None:
    model, full = model_of("fnet"), torch.ones_like(mask)
    whole = Samples(ids, full, full, 0)
    assert examine_alone(model, whole, forward_pass(model, whole, 3)(0, len(ids))) == []


def test_the_shortest_and_the_longest_sample_are_looked_at() -> None:
    chosen = choose_rows(mask)
    assert len(chosen) == 4
    assert {mask[row].sum().item() for row in chosen} >= {2, 24}
    assert choose_rows(mask[:2]) == [1, 0]
    assert choose_rows(torch.zeros(2, 3).bool()) == []


def spoiled(outputs: dict[str, Tensor], row: int, tokens: slice, by: float) -> dict[str, Tensor]:
    [hook] = outputs
    changed = outputs[hook].clone()
    changed[row, tokens] += by * changed[row, tokens].roll(1, -1)
    return {hook: changed}


def test_one_wrong_sample_is_not_hidden_by_longer_ones() -> None:
    model = model_of("llama")
    outputs = spoiled(model.activations(ids, mask), 3, slice(0, 2), 0.5)
    (found,) = examine_alone(model, samples, outputs)
    assert found.severity == "error"
    assert "for sample 43 " in found.message


# A mixture of experts


@pytest.mark.parametrize(("tokens", "severity"), [(slice(3, 4), "warning"), (slice(0, 24), "error")])
def test_a_token_routed_otherwise_is_reported_and_most_of_them_are_refused(tokens: slice, severity: str) -> None:
    model = model_of("mixtral", torch.bfloat16)
    outputs = spoiled(model.activations(ids, mask), choose_rows(mask)[-1], tokens, 0.5)
    (found,) = examine_alone(model, samples, outputs)
    assert found.severity == severity


def test_one_wrong_token_of_a_dense_model_is_refused() -> None:
    model = model_of("llama", torch.bfloat16)
    outputs = spoiled(model.activations(ids, mask), choose_rows(mask)[-1], slice(3, 4), 0.5)
    assert [one.severity for one in examine_alone(model, samples, outputs)] == ["error"]


# The relative error


def test_the_error_is_relative_to_each_token() -> None:
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(relative_errors(x * 1.1, x), torch.full((50,), 0.1 / 1.1).double())
    assert float(relative_errors(x, x).max()) == 0


def test_a_token_with_an_outlying_norm_hides_no_other_one() -> None:
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    x[0] *= 1e4
    y = x.clone()
    y[20:] = x[20:].roll(1, -1)
    assert float(relative_errors(y, x).median()) > 0.3


def test_a_dimension_with_an_outlying_norm_hides_no_other_one() -> None:
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    x[:, 7] = 1e4
    y = x.clone()
    y[:, 8:] = x[:, 8:].roll(1, -1)
    assert float(relative_errors(y, x).min()) > 0.3


def test_tokens_of_zeros_are_left_out_and_hide_no_other_one() -> None:
    x = torch.zeros(1000, 16)
    x[0] = 1.0
    assert relative_errors(-x, x).tolist() == [2.0]
    assert relative_errors(x, torch.zeros_like(x)).tolist() == [1.0]
    assert relative_errors(torch.zeros(3, 4), torch.zeros(3, 4)).tolist() == []


def test_a_nan_on_one_side_is_an_infinite_error() -> None:
    x = torch.ones(3, 4)
    y = x.clone()
    y[1, 2] = float("nan")
    assert relative_errors(y, x).tolist() == [0.0, float("inf"), 0.0]
    assert relative_errors(y, y).tolist() == [0.0, 0.0, 0.0]


def test_zeros_alone_are_no_evidence() -> None:
    model = model_of("llama")
    nn.init.zeros_(model.module.get_submodule("layers.1.mlp.down_proj").weight)  # type: ignore[arg-type]
    with model.also_reading(["layers.1.mlp"]):
        found = examine_alone(model, samples, {"layers.1.mlp": model.activations(ids, mask)["layers.1.mlp"]})
    assert [one.severity for one in found] == ["warning"]
    assert "gives zeros alone" in found[0].message


def test_bounds_widen_with_the_dtype() -> None:
    assert BOUNDS[torch.float32] < BOUNDS[torch.float16] < BOUNDS[torch.bfloat16] < 0.2


def test_a_model_that_cannot_run_alone_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    outputs = model.activations(ids, mask)

    def fail(*_: object) -> None:
        raise ValueError("the length must be a multiple of 8")

    monkeypatch.setattr(model, "activations_alone", fail)
    (found,) = padding_check.examine_alone(model, samples, outputs)
    assert (found.severity, "must be a multiple of 8" in found.message) == ("warning", True)


def test_the_model_is_asked_with_a_mask_of_ones_and_without_padding(tmp_path: Path) -> None:
    model, seen = model_of("llama"), list[tuple[Any, ...]]()
    outputs = model.activations(ids, mask)
    model.module.register_forward_pre_hook(
        lambda _m, _i, named: seen.append((tuple(named["input_ids"].shape), named["attention_mask"].tolist())),
        with_kwargs=True,
    )
    examine_alone(model, samples, outputs)
    assert [(shape, ones) for shape, ones in seen] == [
        ((1, length), [[1] * length]) for length in (mask[row].sum().item() for row in choose_rows(mask))
    ]
