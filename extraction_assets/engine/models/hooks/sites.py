"""The tensors of a model that hooks name by a module's path."""

import re
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from extraction_assets.engine.models.hooks.own_class import own_class_of
from extraction_assets.engine.models.hooks.transformer_lens_names import Side


class HookError(ValueError):
    """A hook that the model does not have, or whose output an SAE cannot read."""


class Site(NamedTuple):
    """One tensor of a model; all spellings of it give the same site."""

    path: str
    """Dotted path of a module; "" is the model itself."""
    side: Side
    run: int | None = None
    """Which run of the module in a forward pass, from 0; None for the only one."""


class Spelling(NamedTuple):
    """A hook in parts, ``path[run].side``."""

    path: str
    run: int | None
    side: str
    """``.input``, ``.output`` or ""."""


_RUN = re.compile(r"(?P<path>[^\[\]]+)\[(?P<run>[0-9]+)\](?P<side>|\.input|\.output)")


def spelled(hook: str) -> Spelling:
    """A hook in parts. Without a run's number the side stays in the path, where a module may be called so."""
    match = _RUN.fullmatch(hook)
    return Spelling(match["path"], int(match["run"]), match["side"]) if match else Spelling(hook, None, "")


def with_run(hook: str, run: int) -> str:
    """``hook``, which names no run, with one: ``layers.0.input`` -> ``layers.0[2].input``."""
    path, _, side = hook.rpartition(".")
    return f"{path}[{run}].{side}" if side in ("input", "output") else f"{hook}[{run}]"


def find_module_site(model: nn.Module, hook: str) -> Site | None:
    """The tensor that ``hook`` names by a module's path; None if there is no such module."""
    modules, (path, run, side) = named_modules(model), spelled(hook)
    found = find_module(model, path, modules)
    if found is not None:
        return Site(found, "input" if side == ".input" else "output", run)
    outer, _, name = path.rpartition(".")
    if run is None and name in ("input", "output") and (found := find_module(model, outer, modules)) is not None:
        return Site(found, "input" if name == "input" else "output")
    return None


def find_module(model: nn.Module, path: str, modules: Mapping[str, str]) -> str | None:
    """The first name of the module at ``path``, which may carry a wrapper's prefix, lack it, or be a name in the class
    of the checkpoint; "" for the model itself under its name in that."""
    prefix = getattr(model, "base_model_prefix", "")
    short = path.removeprefix(f"{prefix}.")
    for candidate in (path, f"{prefix}.{path}", short, f"{text_model(model)}{short}"):
        if path and candidate and candidate in modules:
            return modules[candidate]
    if path and path == prefix:
        return ""
    inner = (own_class := own_class_of(model)) and own_class.inner_path(path)
    return modules.get(inner) if inner is not None else None


def named_modules(model: nn.Module) -> dict[str, str]:
    """Every name of every module -> its first name: a module may stand at several places (tied embeddings)."""
    names = list(model.named_modules(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, module in names:
        first.setdefault(id(module), name)
    return {name: first[id(module)] for name, module in names}


def first_tensor(output: Any) -> Any:
    """The tensor of a module's output that counts as its output: the first one of a tuple or of what transformers'
    models give, their last hidden state."""
    if hasattr(output, "to_tuple"):
        output = output.to_tuple()
    return output[0] if isinstance(output, (tuple, list)) and output else output


def text_configuration(model: nn.Module) -> Any:
    """Configuration of the language model inside ``model``; None for a module that is not of transformers."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else None


_TEXT_MODELS: "weakref.WeakKeyDictionary[nn.Module, str]" = weakref.WeakKeyDictionary()


def text_model(model: nn.Module) -> str:
    """What stands before the paths of the innermost model of the text, ``language_model.`` in a ``Gemma3Model``;
    "" where that is ``model`` itself, or where there are two, such as an encoder and a decoder."""
    if model not in _TEXT_MODELS:
        _TEXT_MODELS[model] = _find_text_model(model)
    return _TEXT_MODELS[model]


def _find_text_model(model: nn.Module) -> str:
    model_type = getattr(text_configuration(model), "model_type", None)
    models: dict[str, Any] = {
        name: module for name, module in model.named_modules() if name and hasattr(module, "get_input_embeddings")
    }
    names = [name for name, candidate in models.items() if candidate.config.model_type == model_type]
    depth = max((name.count(".") for name in names), default=0)
    innermost = [name for name in names if name.count(".") == depth]
    return f"{innermost[0]}." if len(innermost) == 1 else ""
