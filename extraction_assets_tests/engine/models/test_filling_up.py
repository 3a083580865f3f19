"""Models that fill samples up to their attention window: their hooks have widths, names and a clear refusal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extraction_assets.engine.models.hooks.hook import HookError
from extraction_assets.engine.models.hooks.text_pass import readable_modules
from extraction_assets.engine.models.language_model import LanguageModel, probe_hooks
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.models.tiny_types import tiny_model

FILLING_UP = {
    "longformer": ("encoder.layer.0", "encoder.layer.1.output"),
    "led": ("encoder.layers.0", "encoder.layers.1.fc2"),
}
"""Type -> hooks whose outputs have 4 positions for 3 tokens."""


@pytest.mark.parametrize("model_type", FILLING_UP)
def test_the_width_of_a_hook_is_known_from_a_filled_up_pass(model_type: str, tmp_path: Path) -> None:
    tiny_model(model_type).save_pretrained(tmp_path)
    hooks = FILLING_UP[model_type]
    assert probe_hooks(local(tmp_path), hooks) == dict.fromkeys(hooks, 16)


@pytest.mark.parametrize("model_type", FILLING_UP)
def test_every_readable_module_of_a_filled_up_pass_is_a_hook(model_type: str) -> None:
    module = tiny_model(model_type)
    readable = [name for name, runs in readable_modules(module).items() if runs == 1]
    assert set(FILLING_UP[model_type]) < set(readable)
    assert LanguageModel(module, readable).hook_widths().keys() == set(readable)


@pytest.mark.parametrize("model_type", FILLING_UP)
def test_whole_windows_are_read_and_others_refused_with_a_length_that_works(model_type: str) -> None:
    model = LanguageModel(tiny_model(model_type), FILLING_UP[model_type])
    ids = torch.randint(5, 60, (2, 8))
    mask = torch.arange(8) < torch.tensor([8, 5])[:, None]
    assert {output.shape for output in model.activations(ids, mask).values()} == {(2, 8, 16)}
    with pytest.raises(
        HookError, match=r"shape \(2, 8, 16\), expected .* = \[2, 7, …\]; .* max_length .* multiple of 4"
    ):
        model.activations(ids[:, :7], mask[:, :7])


class Convolution(nn.Module):
    """Runs a convolution over positions, which gives [samples, channels, positions and more]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(16, 16, 4, padding=3)

    def forward(self, states: Tensor) -> Tensor:
        return self.conv(states.transpose(1, 2))[..., : states.shape[1]].transpose(1, 2)  # type: ignore[no-any-return]


def test_a_longer_output_of_a_model_that_does_not_fill_up_has_no_width() -> None:
    module: Any = tiny_model("llama")
    module.layers[0].mlp = Convolution()
    assert {"layers.0.mlp", "layers.0.mlp.conv"} & readable_modules(module).keys() == {"layers.0.mlp"}
    with pytest.raises(HookError, match=r"gives a tensor of shape \(2, 16, 6\), expected .* = \[2, 3, …\]$"):
        LanguageModel(module, ["layers.0.mlp.conv"]).hook_widths()


def test_an_output_that_is_not_one_row_a_sample_has_no_width_in_a_filled_up_pass() -> None:
    with pytest.raises(HookError, match=r"shape \(4, 2, 16\), expected \[samples, positions, width\] = \[2, 3, …\]$"):
        LanguageModel(tiny_model("longformer"), ["encoder.layer.0.attention.self.query"]).hook_widths()


def test_suggestions_for_a_model_that_wants_numbers_are_modules_that_run(tmp_path: Path) -> None:
    tiny_model("longformer").save_pretrained(tmp_path)
    with pytest.raises(HookError, match="near names: ") as caught:
        probe_hooks(local(tmp_path), ["encoder.layerx.0"])  # by its configuration alone, which runs nothing
    near = str(caught.value).split("near names: ")[1].split(", ")
    assert set(probe_hooks(local(tmp_path), near)) == set(near)
