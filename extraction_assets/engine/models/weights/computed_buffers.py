"""Buffers that a model computes when it is made, for a model with code of its own.

transformers makes a model without memory and then gives it that of the files. What no file holds, a buffer that is not
persistent, it fills again by ``_init_weights`` in models of its own. A model with code of its own, written for
versions that made models with memory, does not: its buffer holds uninitialised memory.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def restore_computed_buffers(module: Any) -> None:
    """Gives the buffers that are not persistent the values that the class of ``module``, a model of transformers, gives
    them where it is made; nothing to do for a class of transformers itself.

    Peak extra memory: the buffers once more.
    """
    if not module.is_custom_code():
        return
    held = module.state_dict()
    computed = {name: buffer for name, buffer in module.named_buffers(remove_duplicate=False) if name not in held}
    if not computed:
        return
    with _without_parameters(module.dtype):
        fresh = dict(type(module)(copy.deepcopy(module.config)).named_buffers(remove_duplicate=False))
    with torch.no_grad():
        for name, buffer in computed.items():
            buffer.copy_(fresh[name])


def is_computed(module: nn.Module, name: str) -> bool:
    """Whether parameter ``name`` of a model holds what its module computes for it, so that files may leave it out:
    Marian's sinusoidal positions, which ``save_pretrained`` does not save."""
    path, _, attribute = name.rpartition(".")
    owner = module.get_submodule(path)
    create = getattr(owner, "create_weight", None)
    if attribute != "weight" or not callable(create):
        return False
    computed, held = create(), owner.get_parameter(attribute)
    return isinstance(computed, Tensor) and torch.equal(computed.to(held), held)


@contextlib.contextmanager
def _without_parameters(dtype: torch.dtype) -> Iterator[None]:
    """Modules that are made inside have real buffers on the CPU, of ``dtype`` by default, and parameters without
    memory, as accelerate's ``init_empty_weights(include_buffers=False)`` makes them."""
    register, default = nn.Module.register_parameter, torch.get_default_dtype()

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, None if parameter is None else _on_meta(parameter))

    nn.Module.register_parameter = without_memory  # type: ignore[method-assign, assignment]
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cpu"):
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
        torch.set_default_dtype(default)


def _on_meta(parameter: nn.Parameter) -> nn.Parameter:
    empty: Tensor = parameter.detach().to("meta")
    return nn.Parameter(empty, requires_grad=parameter.requires_grad)
