"""A tiny gpt-oss as it is published, the weights of its experts packed as MXFP4, and its unpacked twin."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GptOssConfig, GptOssForCausalLM

from extraction_assets_tests.engine.families import GPT_OSS

VALUES = (0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6)
"""Of the 16 codes of FP4 (OCP Microscaling Formats, E2M1)."""
NOT_PACKED = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]


def unpacked(blocks: Tensor, scales: Tensor) -> Tensor:
    """uint8 [E, rows, columns / 32, 16] of two codes a byte, the lower half first, and uint8 exponents
    [E, rows, columns / 32] with a bias of 127 -> [E, columns, rows], as the model has it."""
    codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2).long()  # [E, rows, columns / 32, 32]
    numbers = torch.tensor(VALUES)[codes] * torch.exp2(scales.float() - 127)[..., None]
    return numbers.flatten(-2).transpose(1, 2).contiguous()


def make_gpt_oss(folder: Path) -> tuple[Path, Path]:
    """Folders of the packed model and of the same one unpacked, both otherwise in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = GptOssForCausalLM(GptOssConfig(**GPT_OSS | {"hidden_size": 64, "intermediate_size": 32}))
    model.to(torch.bfloat16).save_pretrained(folder / "plain")
    plain = load_file(folder / "plain" / "model.safetensors")
    packed = dict(plain)
    for name in [name for name in plain if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, columns, rows = plain[name].shape
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), generator=generator).to(torch.uint8)
        scales = torch.randint(118, 125, (experts, rows, columns // 32), generator=generator).to(torch.uint8)
        del packed[name]
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        plain[name] = unpacked(blocks, scales).to(torch.bfloat16)
    save(folder / "plain", plain)
    (folder / "packed").mkdir()
    config = json.loads((folder / "plain" / "config.json").read_text("utf-8"))
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": NOT_PACKED}
    (folder / "packed" / "config.json").write_text(json.dumps(config), "utf-8")
    save(folder / "packed", packed)
    return folder / "packed", folder / "plain"


def save(folder: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
