"""Which tensor of a model a hook names, and reading it.

A hook is one of

- the dotted path of a module, ``model.layers.3``: its output, or the first tensor of that;
- a path with a side, ``layers.3.input`` or ``layers.3.output``: what the module is called with, or what it gives. A
  module that is itself called so comes first: BERT's ``encoder.layer.0.output`` is that module's output, and
  ``encoder.layer.0.output.input`` its input;
- the name that TransformerLens gives a tensor, ``blocks.3.hook_resid_pre``, in the families of
  ``transformer_lens_names``.

The prefix that a wrapper puts before a path may be there or not: ``model.layers.3`` of ``LlamaForCausalLM`` is
``layers.3`` of ``LlamaModel`` and ``language_model.layers.3`` of ``Gemma3Model``.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from extraction_assets.engine.transformer_lens_names import FAMILIES, Family, Side, family_of


class HookError(ValueError):
    """A hook that the model does not have, or whose output an SAE cannot read."""


class Site(NamedTuple):
    """One tensor of a model; all spellings of it give the same site."""

    path: str
    """Dotted path of a module."""
    side: Side


_TRANSFORMER_LENS = re.compile(r"(?:blocks\.(?P<block>\d+)\.)?(?P<point>(?:\w+\.)*hook_\w+)", re.ASCII)


def resolve_hook(model: nn.Module, hook: str) -> Site:
    """The tensor of ``model`` that ``hook`` names, by the rules at the head of this file.

    Raises HookError with near names, or with what to write instead where a TransformerLens name has no meaning, or
    more than one, in this family of models.
    """
    modules = dict(model.named_modules())
    found = _find_module(model, hook, modules)
    if found:
        return Site(found, "output")
    path, _, side = hook.rpartition(".")
    if side not in ("input", "output"):
        path = hook
    elif found := _find_module(model, path, modules):
        return Site(found, "input" if side == "input" else "output")
    match = _TRANSFORMER_LENS.fullmatch(hook)
    if match:
        return _from_transformer_lens(model, match, modules)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = [name for name in modules if name]
    near = difflib.get_close_matches(path.removeprefix(prefix), names, n=5, cutoff=0.5) or names[:5]
    shown = ", ".join(f"{prefix}{name}" if hook.startswith(prefix) else name for name in near)
    raise HookError(f"the model has no module {path!r}; near names: {shown}")


def read_at(model: nn.Module, site: Site, receive: Callable[[Any], None]) -> RemovableHandle:
    """Has ``receive`` called with what stands at ``site``, an input before the module runs, whenever it runs.

    ``receive`` may get something that is no tensor. The handle ends it.
    """
    module = model.get_submodule(site.path)

    def before(_module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        value = positional[0] if positional else named.get("hidden_states", next(iter(named.values()), None))
        receive(_without_gain(module, value) if site.side == "normalized" else value)

    def after(_module: nn.Module, _inputs: Any, output: Any) -> None:
        receive(output[0] if isinstance(output, (tuple, list)) else output)

    if site.side == "output":
        return module.register_forward_hook(after)
    return module.register_forward_pre_hook(before, with_kwargs=True)


def text_configuration(model: nn.Module) -> Any:
    """Configuration of the language model inside ``model``; None for a module that is not of transformers."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else None


def _find_module(model: nn.Module, path: str, modules: Mapping[str, nn.Module]) -> str | None:
    """The name in ``modules`` of the module at ``path``, which may carry a wrapper's prefix or lack it."""
    prefix = getattr(model, "base_model_prefix", "")
    short = path.removeprefix(f"{prefix}.")
    candidates = [path, f"{prefix}.{path}", f"{_text_model(model, modules)}{short}"]
    return next((name for name in candidates if path and name and name in modules), None)


def _text_model(model: nn.Module, modules: Mapping[str, nn.Module]) -> str:
    """What stands before the paths of the innermost model of the text, ``language_model.`` in a ``Gemma3Model``;
    "" where that is ``model`` itself, or where there are two, such as an encoder and a decoder."""
    model_type = getattr(text_configuration(model), "model_type", None)
    models: dict[str, Any] = {
        name: module for name, module in modules.items() if name and hasattr(module, "get_input_embeddings")
    }
    names = [name for name, own in models.items() if own.config.model_type == model_type]
    depth = max((name.count(".") for name in names), default=0)
    innermost = [name for name in names if name.count(".") == depth]
    return f"{innermost[0]}." if len(innermost) == 1 else ""


def _from_transformer_lens(model: nn.Module, match: re.Match[str], modules: Mapping[str, nn.Module]) -> Site:
    hook, point, root = match[0], match["point"], _text_model(model, modules)
    family = _known_family(model, hook)
    if match["block"] is None:
        if point != "hook_embed" or family.hook_embed is None:
            raise _no_such_name(hook, point, family)
        path, side = family.hook_embed
        return Site(f"{root}{path}", side)
    block, count = int(match["block"]), len(list(modules[f"{root}{family.blocks}"].children()))
    if point not in family.points:
        raise _no_such_name(hook, point, family, min(block, count - 1))
    if block >= count:
        raise HookError(
            f"the model has no hook {hook!r}: it has {count} blocks, blocks.0.{point} to blocks.{count - 1}.{point}"
        )
    inner, side = family.points[point]
    return Site(f"{root}{family.blocks}.{block}" + (f".{inner}" if inner else ""), side)


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


def _no_such_name(hook: str, point: str, family: Family, block: int = 0) -> HookError:
    if point in family.missing:
        return HookError(f"the model has no hook {hook!r}: {family.missing[point]}")
    names = [f"blocks.{block}.{name}" for name in family.points] + ["hook_embed"] * (family.hook_embed is not None)
    near = difflib.get_close_matches(hook, names, n=5, cutoff=0.5) or names
    return HookError(f"the model has no hook {hook!r}; near names: {', '.join(near)}")


def _without_gain(norm: Any, value: Any) -> Any:
    """What an RMSNorm multiplies by its gain: [..., D] -> [..., D] in the same dtype, computed in float32."""
    if not isinstance(value, Tensor):
        return value
    eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    wide = value.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(value.dtype)
