"""Hooks are independent of one another, and what they give is what transformers computes: over many model types."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extraction_assets.engine.models.hooks.sites import first_tensor
from extraction_assets.engine.models.hooks.text_pass import readable_modules, run_text
from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets_tests.engine.models.tiny_types import TYPES, tiny_model

ids = torch.randint(5, 60, (2, 7), generator=torch.Generator().manual_seed(0))
mask = torch.arange(7) < torch.tensor([7, 4])[:, None]
HOOKS = 8
"""Hooks of each model: more of them add time and no other kind of module."""


@torch.inference_mode()
def cloned_outputs(module: nn.Module, options: dict[str, Any]) -> dict[str, Tensor]:
    """The output of every run of every module by hook, cloned as it is given; of a module that runs once also its
    name alone. A plain pass of transformers."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[..., None]:
        def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(tensor := first_tensor(output), Tensor):
                found.setdefault(name, []).append(tensor.clone())

        return after

    handles = [own.register_forward_hook(keep(name)) for name, own in module.named_modules()]
    run_text(module, ids, **options)
    for handle in handles:
        handle.remove()
    once = {name: runs[0] for name, runs in found.items() if len(runs) == 1}
    return once | {f"{name}[{number}]": run for name, runs in found.items() for number, run in enumerate(runs)}


def chosen_hooks(module: nn.Module) -> list[str]:
    """Hooks all over the model, its deepest and every MLP among them; the last run of a module that runs often."""
    names = [name if runs == 1 else f"{name}[{runs - 1}]" for name, runs in readable_modules(module).items()]
    step = max(1, len(names) // HOOKS)
    return list(dict.fromkeys([*names[::step], *(name for name in names if name.endswith(".mlp")), names[-1]]))


def read(module: nn.Module, hooks: list[str]) -> dict[str, Tensor]:
    """What the hooks give, read by a model that knows no others."""
    model = LanguageModel(module, [])
    with model.also_reading(hooks):
        return model.activations(ids, mask)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TYPES)
def test_a_hook_alone_is_the_hook_beside_all_others_and_the_cloned_output(model_type: str) -> None:
    module = tiny_model(model_type)
    options = LanguageModel(module, [])._mask_option(mask)
    expected, hooks = cloned_outputs(module, options), chosen_hooks(module)
    together = read(module, hooks)
    assert len(hooks) >= 3
    for hook in hooks:
        torch.testing.assert_close(together[hook], expected[hook], rtol=0, atol=0, equal_nan=True)
        alone = read(module, [hook])[hook]
        torch.testing.assert_close(alone, expected[hook], rtol=0, atol=0, equal_nan=True)


def test_there_are_more_than_sixty_types() -> None:
    assert len(set(TYPES)) > 60
