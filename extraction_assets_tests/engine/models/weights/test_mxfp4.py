"""gpt-oss with its packed weights: unpacked exactly, whatever is installed, and damage to the packed parts is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from extraction_assets.engine.file_boundary import CheckpointError
from extraction_assets.engine.models.language_model import load_language_model, probe_hooks
from extraction_assets.engine.models.weights.quantization import unpack_to, unpacking_options
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.models.mxfp4 import make_gpt_oss, save

HOOKS = ["model.layers.0", "model.layers.1.mlp", "blocks.2.hook_resid_post"]
EXPERTS = "model.layers.1.mlp.experts.gate_up_proj"
token_ids = torch.randint(3, 48, (3, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_gpt_oss(tmp_path_factory.mktemp("gpt_oss"))


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_the_packed_model_gives_the_bits_of_the_unpacked_one(dtype: str, folders: tuple[Path, Path]) -> None:
    packed, plain = (
        load_language_model(local(folder), HOOKS, dtype=dtype).activations(token_ids, torch.ones_like(token_ids).bool())
        for folder in folders
    )
    for hook in HOOKS:
        assert torch.equal(packed[hook], plain[hook])
        assert packed[hook].std() > 0.1


def test_all_its_weights_are_those_of_the_files(folders: tuple[Path, Path]) -> None:
    model = load_language_model(local(folders[0]), HOOKS)
    assert model.weights is not None
    assert model.weights.is_whole
    assert model.weight_findings() == []
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}


def test_no_optional_package_is_asked_for(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are installed transformers computes with packed weights, and refuses if accelerate is missing."""
    from transformers.quantizers import quantizer_mxfp4

    for name in ("is_accelerate_available", "is_triton_available", "is_kernels_available"):
        monkeypatch.setattr(quantizer_mxfp4, name, lambda *_: pytest.fail("asks for an optional package"))
    assert load_language_model(local(folders[0]), HOOKS).hook_widths() == dict.fromkeys(HOOKS, 64)


def test_widths_are_known_without_weights(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copy(folders[0] / "config.json", tmp_path)
    assert probe_hooks(local(tmp_path), HOOKS) == dict.fromkeys(HOOKS, 64)


@pytest.mark.parametrize(("method", "expected"), [("mxfp4", torch.float32), ("other", torch.bfloat16)])
def test_what_is_unpacked_to_bfloat16_gets_the_dtype_that_was_asked_for(method: str, expected: torch.dtype) -> None:
    module = torch.nn.Linear(2, 2, dtype=torch.bfloat16)
    unpack_to(module, SimpleNamespace(quantization_config={"quant_method": method}), torch.float32)
    assert {parameter.dtype for parameter in module.parameters()} == {expected}


def test_only_mxfp4_is_unpacked_by_option() -> None:
    class Configuration:
        quantization_config = {"quant_method": "fp8"}

    assert unpacking_options(Configuration()) == {}
    assert unpacking_options(object()) == {}


Damage = Callable[[dict[str, Tensor]], object]
DAMAGED: dict[str, tuple[Damage, str]] = {
    "no scales": (lambda t: t.pop(f"{EXPERTS}_scales"), "other parts of layers.1.mlp.experts.gate_up_proj than"),
    "no blocks": (lambda t: t.pop(f"{EXPERTS}_blocks"), "other parts of layers.1.mlp.experts.gate_up_proj than"),
    "no bias": (lambda t: t.pop(f"{EXPERTS}_bias"), "not in the files: layers.1.mlp.experts.gate_up_proj_bias"),
    "neither": (
        lambda t: (t.pop(f"{EXPERTS}_scales"), t.pop(f"{EXPERTS}_blocks")),
        "not in the files: layers.1.mlp.experts.gate_up_proj",
    ),
    "fewer rows": (
        lambda t: t.update({name: t[name][:, :32].contiguous() for name in t if name.startswith(f"{EXPERTS}_")}),
        r"of another shape in the files: layers.1.mlp.experts.gate_up_proj",
    ),
    "infinite": (lambda t: t[f"{EXPERTS}_scales"].fill_(255), "NaN or infinite in float32: layers.1.mlp.experts.gate"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_parts_are_named(name: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    damage, message = DAMAGED[name]
    tensors = load_file(folders[0] / "model.safetensors")
    damage(tensors)
    shutil.copy(folders[0] / "config.json", tmp_path)
    save(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=message):
        load_language_model(local(tmp_path), HOOKS)


def test_packed_weights_without_a_quantization_config_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[0], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    del config["quantization_config"]
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(CheckpointError, match=r"without a place in the model: .*gate_up_proj_blocks"):
        load_language_model(local(tmp_path), HOOKS)
