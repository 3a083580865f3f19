"""16-bit weights: halve the files, choose the format that loses less, measure what is left."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch

SIXTEEN_BIT = (torch.float16, torch.bfloat16)

Module = TypeVar("Module", bound=torch.nn.Module)


def rounded(module: Module, dtype: torch.dtype) -> Module:
    """A copy whose weights went through dtype and back to float32."""
    return copy.deepcopy(module).to(dtype).float()


def measure_rounded(module: Module, measure: Callable[[Module], float]) -> dict[torch.dtype, float]:
    """A figure of the module for each 16-bit format of its weights."""
    return {dtype: measure(rounded(module, dtype)) for dtype in SIXTEEN_BIT}
