"""The watched pass on a GPU: Falcon's MLP is the cloned output, and nothing is copied or waited for without need."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from extraction_assets.engine.models.language_model import LanguageModel
from extraction_assets.engine.models.padding_check import examine_alone
from extraction_assets.engine.shapes import Samples
from extraction_assets_tests.engine.cuda import counted_synchronisations
from extraction_assets_tests.engine.models.tiny_types import tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)
ids = torch.randint(5, 60, (12, 32), generator=torch.Generator().manual_seed(0))
mask = torch.arange(32) < torch.tensor([32, 5, 17, 32] * 3)[:, None]


def on_gpu(model_type: str, dtype: torch.dtype) -> nn.Module:
    return tiny_model(model_type, dtype).to(CUDA)


def cloned(module: nn.Module, path: str) -> Tensor:
    """The output of a module in a plain pass of transformers."""
    found = list[Tensor]()
    handle = module.get_submodule(path).register_forward_hook(
        lambda _m, _i, out: found.append((out[0] if isinstance(out, tuple) else out).clone())
    )
    with torch.inference_mode():
        module(input_ids=ids.to(CUDA))
    handle.remove()
    return found[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_falcons_mlp_is_the_cloned_output_whatever_is_hooked_beside_it(dtype: torch.dtype) -> None:
    module = on_gpu("falcon", dtype)
    expected = cloned(module, "h.0.mlp")
    for hooks in (["h.0.mlp"], ["h.0.mlp", "h.1"]):
        outputs = LanguageModel(module, hooks).activations(ids.to(CUDA), mask.to(CUDA))
        assert torch.equal(outputs["h.0.mlp"], expected)


def test_compiled_blocks_give_the_cloned_output() -> None:
    module = on_gpu("falcon", torch.float32)
    expected = {path: cloned(module, path) for path in ("h.0.mlp", "h.1")}
    model = LanguageModel(module, ["h.0.mlp", "h.1"])
    model.activations(ids.to(CUDA), mask.to(CUDA))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler
        model.compile_blocks()
        outputs = model.activations(ids.to(CUDA), mask.to(CUDA))
    for path, output in outputs.items():
        torch.testing.assert_close(output, expected[path], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["falcon", "llama"])
def test_a_pass_after_the_first_one_synchronises_no_more_than_the_model_itself(model_type: str) -> None:
    hook = {"falcon": "h.0.mlp", "llama": "layers.0.mlp"}[model_type]
    module, (token_ids, attention_mask) = on_gpu(model_type, torch.float32), (ids.to(CUDA), mask.to(CUDA))
    with torch.inference_mode(), counted_synchronisations() as own:
        module(input_ids=token_ids)
    model = LanguageModel(module, [hook])
    model.activations(token_ids, attention_mask)
    with counted_synchronisations() as found:
        model.activations(token_ids, attention_mask)
    assert len(found) <= len(own)


def test_a_tensor_that_nothing_writes_into_is_not_copied() -> None:
    module, seen = on_gpu("llama", torch.float32), list[int]()
    model = LanguageModel(module, ["layers.0.mlp"])
    model.activations(ids.to(CUDA), mask.to(CUDA))
    module.get_submodule("layers.0.mlp.down_proj").register_forward_hook(
        lambda _m, _i, out: seen.append(out.data_ptr())
    )
    assert model.activations(ids.to(CUDA), mask.to(CUDA))["layers.0.mlp"].data_ptr() == seen[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", ["falcon", "llama", "gpt2", "bert", "gemma2", "qwen2"])
def test_samples_alone_agree_with_the_padded_batch(model_type: str, dtype: torch.dtype) -> None:
    module = on_gpu(model_type, dtype)
    hook = {"bert": "encoder.layer.1", "gpt2": "h.1", "falcon": "h.1"}.get(model_type, "layers.1")
    model = LanguageModel(module, [hook])
    outputs = model.activations(ids.to(CUDA), mask.to(CUDA))
    assert examine_alone(model, Samples(ids, mask, mask, 0), outputs) == []
