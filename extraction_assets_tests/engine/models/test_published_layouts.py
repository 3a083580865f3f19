"""Files of the layouts that models are published in load with the numbers they hold, and without a word."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from extraction_assets.engine.file_boundary import CheckpointError
from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import VOCABULARY, save_model
from extraction_assets_tests.engine.models.published import PUBLISHED

Tensors = dict[str, Tensor]
HOOK = "model.layers.2"
token_ids = torch.randint(3, VOCABULARY - 2, (2, 9), generator=torch.Generator().manual_seed(0))


def with_a_tower_of_its_class(tensors: Tensors) -> Tensors:
    return {re.sub(r"^vision_tower\.", "vision_tower.vision_model.", name): one for name, one in tensors.items()}


def with_layers_that_predict_further_tokens(tensors: Tensors) -> Tensors:
    block = {name: one for name, one in tensors.items() if ".layers.1." in name}
    further = {re.sub(r"^.*layers\.1\.", "mtp.layers.0.", name): one.clone() for name, one in block.items()}
    return tensors | further | {"mtp.fc.weight": torch.ones(16, 32), "mtp.norm.weight": torch.ones(16)}


def with_experts_in_one_tensor(tensors: Tensors) -> Tensors:
    """[experts, 2 * width, D] of gate and up, and [experts, D, width] of down."""
    found = {name: one for name, one in tensors.items() if ".experts." not in name}
    stacks = {re.sub(r"\.experts\..*", ".experts", name) for name in tensors if ".experts." in name}
    for stack in stacks:
        parts = {
            part: torch.stack([tensors[f"{stack}.{number}.{part}_proj.weight"] for number in range(4)])
            for part in ("gate", "up", "down")
        }
        found[f"{stack}.gate_up_proj"] = torch.cat([parts["gate"], parts["up"]], dim=1)
        found[f"{stack}.down_proj"] = parts["down"]
    return found


LAYOUTS: dict[tuple[str, str], Callable[[Tensors], Tensors]] = {
    ("Gemma3ForConditionalGeneration", "tower"): with_a_tower_of_its_class,
    ("Qwen3_5ForConditionalGeneration", "mtp"): with_layers_that_predict_further_tokens,
    ("Qwen3_5MoeForConditionalGeneration", "mtp"): with_layers_that_predict_further_tokens,
    ("Qwen3_5MoeForConditionalGeneration", "experts"): with_experts_in_one_tensor,
    ("Qwen3MoeForCausalLM", "experts"): with_experts_in_one_tensor,
}


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_a_published_layout_gives_the_same_and_says_nothing(name: str, layout: str, tmp_path: Path) -> None:
    save_model(getattr(transformers, name)._from_config, tmp_path, PUBLISHED[name].family)
    before = load_language_model(local(tmp_path), [HOOK]).activations(token_ids, torch.ones_like(token_ids).bool())
    tensors = load_file(tmp_path / "model.safetensors")
    changed = LAYOUTS[name, layout](tensors)
    assert changed.keys() != tensors.keys()
    save_file(changed, tmp_path / "model.safetensors", {"format": "pt"})
    model = load_language_model(local(tmp_path), [HOOK])
    assert model.weight_findings() == []
    assert torch.equal(model.activations(token_ids, torch.ones_like(token_ids).bool())[HOOK], before[HOOK])


@pytest.mark.parametrize("expert", ["gate", "up", "down"])
def test_a_missing_expert_is_refused(expert: str, tmp_path: Path) -> None:
    save_model(transformers.Qwen3MoeForCausalLM._from_config, tmp_path, "qwen3_moe")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[f"model.layers.1.mlp.experts.2.{expert}_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.experts\."):
        load_language_model(local(tmp_path), [HOOK])
