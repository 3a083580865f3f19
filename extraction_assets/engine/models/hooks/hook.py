"""Which tensor of a model a hook names, and reading it.

A hook is one of

- the dotted path of a module, ``model.layers.3``: its output, or the first tensor of that;
- a path with a side, ``layers.3.input`` or ``layers.3.output``: what the module is called with, or what it gives. A
  module that is itself called so comes first: BERT's ``encoder.layer.0.output`` is that module's output, and
  ``encoder.layer.0.output.input`` its input;
- a path with the number of a run, from 0, of a module that runs more than once in a forward pass, such as ALBERT's
  shared layer: ``encoder.albert_layer_groups.0[2]`` is the output of its third run, and
  ``encoder.albert_layer_groups.0[2].input`` the input of that;
- the name that TransformerLens gives a tensor, ``blocks.3.hook_resid_pre``, in the families of
  ``transformer_lens_names``.

Paths are those of the model without its head, or of the class that the checkpoint was saved from: the prefix that a
wrapper puts before a path may be there or not. ``model.layers.3`` of ``LlamaForCausalLM`` is ``layers.3`` of
``LlamaModel``; ``layers.3``, ``model.layers.3`` and ``model.language_model.layers.3`` are ``language_model.layers.3``
of ``Gemma3Model``.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from extraction_assets.engine.models.hooks.near_names import no_such_module, no_such_name
from extraction_assets.engine.models.hooks.sites import (
    HookError,
    Site,
    find_module_site,
    first_tensor,
    named_modules,
    text_configuration,
    text_model,
)
from extraction_assets.engine.models.hooks.transformer_lens_names import FAMILIES, Family, family_of

_TRANSFORMER_LENS = re.compile(r"(?:blocks\.(?P<block>\d+)\.)?(?P<point>(?:\w+\.)*hook_\w+)", re.ASCII)


def resolve_hook(model: nn.Module, hook: str) -> Site:
    """The tensor of ``model`` that ``hook`` names, by the rules at the head of this file.

    Raises HookError with near names, or with what to write instead where a TransformerLens name has no meaning, or
    more than one, in this family of models.
    """
    if site := find_module_site(model, hook):
        return site
    if match := _TRANSFORMER_LENS.fullmatch(hook):
        return _from_transformer_lens(model, match, named_modules(model))
    raise HookError(no_such_module(model, hook, lambda other: find_hook(model, other) is not None))


def find_hook(model: nn.Module, hook: str) -> Site | None:
    """As ``resolve_hook``; None if there is no such hook, without looking for near names."""
    if site := find_module_site(model, hook):
        return site
    match = _TRANSFORMER_LENS.fullmatch(hook)
    try:
        return _from_transformer_lens(model, match, named_modules(model)) if match else None
    except HookError:
        return None


def read_at(model: nn.Module, site: Site, receive: Callable[[Any], None]) -> RemovableHandle:
    """Has ``receive`` called with what stands at ``site``, an input before the module runs, whenever it runs.

    ``receive`` may get something that is no tensor. The handle ends it.
    """
    module = model.get_submodule(site.path)

    def before(_module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        value = positional[0] if positional else named.get("hidden_states", next(iter(named.values()), None))
        receive(_without_gain(module, value) if site.side == "normalized" else value)

    def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
        receive(first_tensor(output))

    if site.side == "output":
        return module.register_forward_hook(after)
    return module.register_forward_pre_hook(before, with_kwargs=True)


def _from_transformer_lens(model: nn.Module, match: re.Match[str], modules: Mapping[str, str]) -> Site:
    hook, point, root = match[0], match["point"], text_model(model)
    family, config = _known_family(model, hook), text_configuration(model)
    if match["block"] is None:
        if point != "hook_embed" or family.hook_embed is None:
            raise HookError(no_such_name(hook, point, family.in_block(config, 0), 0))
        path, side = family.hook_embed
        return Site(f"{root}{path}", side)
    block, count = int(match["block"]), len(list(model.get_submodule(f"{root}{family.blocks}").children()))
    having = [number for number in range(count) if point in family.in_block(config, number).points]
    if block >= count and having:
        raise HookError(
            f"the model has no hook {hook!r}: it has {count} blocks, blocks.{having[0]}.{point} to "
            f"blocks.{having[-1]}.{point}"
        )
    family = family.in_block(config, min(block, count - 1))
    if point not in family.points:
        raise HookError(no_such_name(hook, point, family, min(block, count - 1)))
    inner, side = family.points[point]
    return Site(modules[f"{root}{family.blocks}.{block}" + (f".{inner}" if inner else "")], side)


def _known_family(model: nn.Module, hook: str) -> Family:
    config = text_configuration(model)
    family = family_of(config)
    if family is None:
        raise HookError(
            f"hook {hook!r} is a TransformerLens name, and where a model of type "
            f"{getattr(config, 'model_type', type(model).__name__)!r} has that tensor is not known here (only for "
            f"{', '.join(FAMILIES)}): give the dotted path of a module, with .input or .output"
        )
    return family


def _without_gain(norm: Any, value: Any) -> Any:
    """What an RMSNorm multiplies by its gain: [..., D] -> [..., D] in the same dtype, computed in float32."""
    if not isinstance(value, Tensor):
        return value
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    wide = value.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(value.dtype)


__all__ = ["HookError", "Site", "find_hook", "read_at", "resolve_hook", "text_configuration"]
