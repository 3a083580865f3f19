"""On a GPU: models of the classes with published SAEs against transformers itself, single samples and the CPU."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

from extraction_assets.engine.chunk_pass.batching import AdaptiveBatch
from extraction_assets.engine.chunk_pass.context import PassSettings
from extraction_assets.engine.chunk_pass.forward import forward_pass
from extraction_assets.engine.chunk_pass.one_chunk import ChunkResult, run_chunk
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.hooks.sites import first_tensor
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.models.padding_check import BOUNDS, examine_alone, relative_errors
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets.engine.shapes import Samples
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import FAMILIES, NUM_BLOCKS, VOCABULARY, save_model
from extraction_assets_tests.engine.models.mxfp4 import make_gpt_oss
from extraction_assets_tests.tiny import make_sae

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)
T, WIDTH = 96, 256
DECODERS = [name for name, layout in FAMILIES.items() if layout.kind != "post-norm"]
HOOKS = [f"blocks.{block}.hook_resid_post" for block in range(NUM_BLOCKS)]
PUBLISHED = {
    "model.layers.4.output": WIDTH,
    "model.layers.3.self_attn.o_proj.input": 128,
    "model.layers.2.pre_feedforward_layernorm.output": WIDTH,
    "model.layers.5.post_feedforward_layernorm.output": WIDTH,
}
"""Hooks as Gemma Scope 2 names them, and their widths."""


def samples_of(count: int, positions: int, tokens: int) -> Samples:
    """Every third sample fills its row."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, tokens, (count, positions), generator=generator)
    lengths = torch.randint(1, positions + 1, (count, 1), generator=generator)
    lengths[::3] = positions
    mask = torch.arange(positions) < lengths
    return Samples(torch.where(mask, ids, 0), mask, mask.clone(), 500)


@pytest.fixture(scope="module", params=["text", "images"])
def gemma3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 in bfloat16 as it is published, of one block in six without a window; with images a class around it."""
    folder = tmp_path_factory.mktemp(f"gemma3_{request.param}")
    text = Gemma3TextConfig(
        vocab_size=500,
        hidden_size=WIDTH,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        sliding_window=16,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    model: Any
    if request.param == "text":
        model = Gemma3ForCausalLM(text)
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision = SiglipVisionConfig(**sizes, image_size=8, patch_size=4, vision_use_head=False)
        model = Gemma3ForConditionalGeneration(
            Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_id=499)
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def load(folder: Path, device: torch.device, dtype: str = "bfloat16") -> LanguageModel:
    return load_language_model(local(folder), list(PUBLISHED), device=device, dtype=dtype)


@torch.inference_mode()
def plain(folder: Path, samples: Samples) -> dict[str, Tensor]:
    """The published hooks by hooks of torch in a pass of the class that transformers loads, on the GPU in bfloat16."""
    module: Any = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval().to(CUDA)
    inner: nn.Module = getattr(module, "language_model", module)
    found: dict[str, Tensor] = {}
    for hook in PUBLISHED:
        path, _, side = hook.removeprefix("model.").rpartition(".")
        target = inner.get_submodule(path)
        if side == "input":
            target.register_forward_pre_hook(lambda _m, args, hook=hook: found.update({hook: args[0].clone()}))
        else:
            target.register_forward_hook(lambda _m, _i, out, hook=hook: found.update({hook: first_tensor(out).clone()}))
    module(input_ids=samples.token_ids.to(CUDA), use_cache=False)
    return found


def test_gemma_3_in_bfloat16_gives_the_bits_of_transformers(gemma3: Path) -> None:
    samples = samples_of(8, T, 490)
    ours = load(gemma3, CUDA).activations(samples.token_ids.to(CUDA), samples.attention_mask.to(CUDA))
    for hook, expected in plain(gemma3, samples).items():
        assert (ours[hook].dtype, ours[hook].shape[-1]) == (torch.bfloat16, PUBLISHED[hook])
        assert torch.equal(ours[hook], expected)


def test_gemma_3_in_bfloat16_agrees_with_single_samples(gemma3: Path) -> None:
    model, samples = load(gemma3, CUDA), samples_of(12, T, 490)
    assert examine_alone(model, samples, forward_pass(model, samples, 8)(0, 12)) == []


def test_gemma_3_in_bfloat16_is_near_the_cpu_in_float32(gemma3: Path) -> None:
    samples = samples_of(4, T, 490)
    on_gpu = load(gemma3, CUDA).activations(samples.token_ids.to(CUDA), samples.attention_mask.to(CUDA))
    on_cpu = load(gemma3, torch.device("cpu"), "float32").activations(samples.token_ids, samples.attention_mask)
    for hook in PUBLISHED:
        errors = relative_errors(on_gpu[hook].cpu()[samples.attention_mask], on_cpu[hook][samples.attention_mask])
        assert float(errors.quantile(0.99)) < BOUNDS[torch.bfloat16]


def _chunk(gemma3: Path, saes: dict[str, Path], samples: Samples, size: int) -> ChunkResult:
    model = load(gemma3, CUDA)
    tasks = [SaeTask(hook, hook, load_sae(folder, CUDA)) for hook, folder in saes.items()]
    settings, reader = PassSettings(batch_size=8, top_k=5), forward_pass(model, samples, 8)
    return run_chunk(samples, reader, tasks, settings, AdaptiveBatch(size), CUDA, [0, len(samples.token_ids) - 1])


def test_a_pass_over_gemma_3_does_not_depend_on_the_vectorization_batch(gemma3: Path, tmp_path: Path) -> None:
    saes = {
        hook: make_sae(tmp_path / str(number), "jumprelu", d_in=width, d_sae=512, seed=number)
        for number, (hook, width) in enumerate(PUBLISHED.items())
    }
    ours, theirs = (_chunk(gemma3, saes, samples_of(40, T, 490), size).saes for size in (3, 64))
    for hook in PUBLISHED:
        assert_same(ours[hook].table, theirs[hook].table)
        assert_same(ours[hook].statistics, theirs[hook].statistics)
        assert len(ours[hook].table.neuron_index) > 100


# Every family


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("families")

    @cache
    def make(family: str) -> Path:
        save_model(AutoModel.from_config, folder / family, family)
        return folder / family

    return make


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", DECODERS)
def test_a_padded_batch_agrees_with_single_samples(family: str, dtype: str, saved: Callable[[str], Path]) -> None:
    model = load_language_model(local(saved(family)), HOOKS, device=CUDA, dtype=dtype)
    samples = samples_of(12, 80 if FAMILIES[family].linear else 30, VOCABULARY - 2)
    found = examine_alone(model, samples, forward_pass(model, samples, 5)(0, 12))
    assert [one.message for one in found if one.severity == "error"] == []


@pytest.mark.parametrize("family", DECODERS)
def test_the_gpu_is_near_the_cpu_in_float32(family: str, saved: Callable[[str], Path]) -> None:
    samples = samples_of(6, 80 if FAMILIES[family].linear else 30, VOCABULARY - 2)
    on_gpu, on_cpu = (
        load_language_model(local(saved(family)), HOOKS, device=device, dtype="float32").activations(
            samples.token_ids.to(device), samples.attention_mask.to(device)
        )
        for device in (CUDA, torch.device("cpu"))
    )
    for hook in HOOKS:
        errors = relative_errors(on_gpu[hook].cpu()[samples.attention_mask], on_cpu[hook][samples.attention_mask])
        assert float(errors.quantile(0.99)) < BOUNDS[torch.float32]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_replayed_batches_give_the_bits_of_eager_ones(
    family: str, saved: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_language_model(local(saved(family)), HOOKS[:2], device=CUDA)
    samples = samples_of(56, 80 if FAMILIES[family].linear else 30, VOCABULARY - 2)
    read, ids, mask = forward_pass(model, samples, 8), samples.token_ids.to(CUDA), samples.attention_mask.to(CUDA)
    rows = 8 if model.is_causal else 9  # one more, always padding
    for start in range(0, 56, 8):
        padded = [torch.nn.functional.pad(one[start : start + 8], (0, 0, 0, rows - 8)) for one in (ids, mask)]
        padded[1][8:, 0] = True
        expected = model.activations(*padded)
        for hook, output in read(start, start + 8).items():
            assert torch.equal(output.view(torch.uint8), expected[hook][:8].contiguous().view(torch.uint8))
    with capsys.disabled():
        print(f"{family}: {'replayed' if model._replay.is_recorded else 'eager'}", end=" ")


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_packed_weights_of_gpt_oss_are_those_of_the_unpacked_model(dtype: str, tmp_path: Path) -> None:
    """By default in bfloat16, whether or not kernels for packed weights are installed."""
    ids = samples_of(3, 12, VOCABULARY - 2).token_ids.to(CUDA)
    packed, plain = (
        load_language_model(local(folder), HOOKS, device=CUDA, dtype=dtype).activations(
            ids, torch.ones_like(ids).bool()
        )
        for folder in make_gpt_oss(tmp_path)
    )
    for hook in HOOKS:
        assert packed[hook].dtype == (torch.bfloat16 if dtype == "auto" else torch.float32)
        assert torch.equal(packed[hook], plain[hook])
