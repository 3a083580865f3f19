"""On a GPU: every format of SAEs, read there, encodes and decodes as its twin on the CPU.

Needs neither SAELens nor a network. ``test_every_layout_is_compared`` runs on a CPU too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.saes.formats import place_of, read_checkpoint
from extraction_assets.engine.saes.sae import SAE, matmul_precision
from extraction_assets.engine.selection.sparse import dense_to_sparse
from extraction_assets_tests.engine.saes.formats import published_layouts, published_layouts_b
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    random,
    thresholds,
    write_dictionary_learning,
    write_gemma_scope,
    write_gemma_scope_2,
    write_gemma_scope_2_clt,
    write_mntss,
    write_sae_lens,
    write_sparsify,
)
from extraction_assets_tests.engine.saes.formats.published_layouts_b import (
    write_deepseek_r1,
    write_goodfire,
    write_kissane,
    write_llama_scope,
    write_llama_scope_r1_distill,
    write_llamascopium,
    write_mwhanna,
    write_qwen_scope,
)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the CPU has tests of its own")

CUDA = torch.device("cuda", 0)
TOKENS = 48
QWEN = "SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
TRANSCODER = {"hook_point_in": "blocks.14.ln2.hook_normalized", "hook_point_out": "blocks.14.hook_mlp_out"}

LAYOUTS: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "Gemma Scope": (write_gemma_scope, "layer_12/width_16k/average_l0_82", {}),
    "Gemma Scope's transcoder": (write_gemma_scope, "google/gemma-scope-2b-pt-transcoders/layer_3/width_16k", {}),
    "Gemma Scope's embedding": (write_gemma_scope, "google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", {}),
    "Gemma Scope 2": (write_gemma_scope_2, "resid_post/layer_17_width_16k_l0_medium", {}),
    "Gemma Scope 2's transcoder": (write_gemma_scope_2, "transcoder_all/layer_3_width_16k_l0_small_affine", {}),
    "Gemma Scope 2's cross-layer transcoder": (
        write_gemma_scope_2_clt,
        "clt/width_262k_l0_big/layer_3",
        {},
    ),
    "mntss": (write_mntss, "W_enc_2.safetensors", {}),
    "mntss with thresholds": (write_mntss, "W_enc_2.safetensors", {"threshold": thresholds(D_SAE, seed=5)}),
    "SAELens": (write_sae_lens, "sae", {}),
    "sparsify": (write_sparsify, "layers.3", {}),
    **{
        f"dictionary_learning {name}": (write_dictionary_learning, "sae", {"dict_class": name})
        for name in ("AutoEncoder", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "JumpReluAutoEncoder")
    },
    "Llama Scope": (write_llama_scope, "Llama3_1-8B-Base-L15R-8x", {}),
    "Llama Scope topk": (write_llama_scope, "topk", {"act_fn": "topk", "top_k": 7, "jump_relu_threshold": 0}),
    "Llama Scope R1": (write_llama_scope_r1_distill, "L15R", {}),
    "Llamascopium relu": (write_llamascopium, "", {"act_fn": "relu"}),
    "Llamascopium jumprelu": (write_llamascopium, "", {"norms": (2.0, 2.0)}),
    "Llamascopium topk": (write_llamascopium, "", {"act_fn": "topk"}),
    "Llamascopium token-wise": (write_llamascopium, "", {"norm_activation": "token-wise"}),
    "Llamascopium transcoder": (write_llamascopium, "", TRANSCODER),
    "Qwen Scope": (write_qwen_scope, f"{QWEN}/layer0.sae.pt", {}),
    "Goodfire": (write_goodfire, "Llama-3.1-8B-Instruct-SAE-l19.pth", {}),
    "qresearch": (write_deepseek_r1, "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", {}),
    "ckkissane": (write_kissane, "gpt2-small_L0_Hcat_z_v9.pt", {}),
    "mwhanna": (write_mwhanna, "layer_7.safetensors", {}),
    "circuit-tracer with a skip": (write_mwhanna, "layer_7.safetensors", {"W_skip": random(D_IN, D_IN, seed=7)}),
}
"""By name: its writer, the folder or file of the SAE, options of the writer."""


def written(name: str, root: Path) -> Path:
    """A small checkpoint of a layout: its folder or file."""
    write, inside, options = LAYOUTS[name]
    if write is write_mntss:
        write(root, **options)
    elif write is write_qwen_scope:
        write((root / inside).parent, Path(inside).name, **options)
    else:
        write(root, inside, **options)
    return root / inside if (root / inside).exists() else root / f"{inside}.safetensors"


def test_every_layout_is_compared(tmp_path: Path) -> None:
    """By each writer of a published layout; each of them is read on the CPU."""
    modules = (published_layouts, published_layouts_b)
    writers = {made for module in modules for key, made in vars(module).items() if key.startswith("write_")}
    assert {write for write, *_ in LAYOUTS.values()} == writers
    for number, name in enumerate(LAYOUTS):
        assert read_checkpoint(place_of(written(name, tmp_path / str(number)))).d_in == D_IN


def _compare(on_gpu: SAE, on_cpu: SAE, x: Tensor) -> None:
    """Encode and decode in float32, within float32's error; and by TF32, within its."""
    on_device = x.to(CUDA)
    with matmul_precision("highest"):
        exact = on_cpu.encode(x)
        torch.testing.assert_close(on_gpu.encode(on_device).cpu(), exact, rtol=1e-5, atol=1e-5)
    with matmul_precision("high"):
        tf32 = on_gpu.encode(on_device).cpu()
    both = (exact > 0) & (tf32 > 0)
    assert ((exact > 0) != (tf32 > 0)).double().mean() < 0.01  # those near their threshold
    torch.testing.assert_close(tf32[both], exact[both], rtol=1e-2, atol=1e-2 * float(exact.max()))
    if on_cpu.reconstructs:
        sparse = dense_to_sparse(exact.view(4, TOKENS // 4, -1))
        theirs = on_cpu.decode(sparse, x.view(4, TOKENS // 4, -1))
        moved = type(sparse)(*(part.to(CUDA) if isinstance(part, Tensor) else part for part in sparse))
        ours = on_gpu.decode(moved, on_device.view(4, TOKENS // 4, -1)).cpu()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@needs_gpu
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_format_read_on_the_gpu_encodes_and_decodes_as_on_the_cpu(name: str, tmp_path: Path) -> None:
    place = place_of(written(name, tmp_path))
    on_gpu, on_cpu = read_checkpoint(place, device=CUDA), read_checkpoint(place)
    for key, tensor in on_gpu.tensors().items():
        assert tensor.device == CUDA
        torch.testing.assert_close(tensor.cpu(), on_cpu.tensors()[key], rtol=1e-6, atol=1e-7)
    x = random(TOKENS, D_IN, seed=0) * 2
    features = SAE(on_cpu).encode(x)
    assert 0 < int((features > 0).sum()) < 0.9 * features.numel()
    _compare(SAE(on_gpu, CUDA), SAE(on_cpu), x)
