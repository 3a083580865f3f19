"""Weights that the files hold in packed types, which a ``quantization_config`` explains."""

from typing import Any

import torch
from torch import nn


def is_quantized(config: Any) -> bool:
    """Whether a configuration says that weights are stored in a form that transformers has a quantizer for; a form that
    it does not know it ignores."""
    from transformers.quantizers import AutoHfQuantizer

    chosen = getattr(config, "quantization_config", None)
    return chosen is not None and bool(AutoHfQuantizer.supports_quant_method(chosen))


def unpacking_options(config: Any) -> dict[str, Any]:
    """Options of ``from_pretrained`` for a model with this configuration.

    MXFP4 (gpt-oss) is unpacked to the model's dtype, exactly: each of its numbers is one of 16 values times a power of
    2. transformers would do so where it finds no kernels for packed weights, and else compute with these, whose
    activations are bfloat16: what a hook gives would depend on which optional packages are installed.
    """
    chosen = getattr(config, "quantization_config", None)
    if not isinstance(chosen, dict) or chosen.get("quant_method") != "mxfp4":
        return {}
    from transformers import Mxfp4Config

    return {"quantization_config": Mxfp4Config(dequantize=True)}


def unpack_to(module: nn.Module, config: Any, dtype: Any) -> None:
    """Casts what earlier versions of transformers unpack to bfloat16 whatever is asked for; float32 holds it exactly.

    ``dtype`` is what was asked for; of ``auto``, the model's, nothing is cast.
    """
    if not unpacking_options(config) or not isinstance(dtype, torch.dtype):
        return
    for parameter in module.parameters():
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.to(dtype)
