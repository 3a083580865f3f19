"""The names that modules have in the class of the checkpoint itself, such as ``LlamaForCausalLM``.

A model is loaded without its head, as ``LlamaModel``; people know its modules by the names of the class that the
checkpoint was saved from (``config.architectures``).
"""

import copy
import warnings
import weakref
from typing import Any, NamedTuple

import torch
from torch import nn


class OwnClass(NamedTuple):
    """The checkpoint's own class around the model that was loaded."""

    name: str
    prefix: str | None
    """Path of the loaded model within it; None if it is not one of its modules."""
    modules: frozenset[str]
    """Names of all its modules."""

    def inner_path(self, path: str) -> str | None:
        """The path within the loaded model of a module of this class, "" for that model itself; None for a module that
        this class does not have, or has beside the loaded model: its head."""
        if path not in self.modules:
            return None
        if self.prefix is None:
            return path
        return "" if path == self.prefix else path.removeprefix(f"{self.prefix}.") if self._within(path) else None

    def outer_path(self, path: str) -> str:
        """The name in this class of a module of the loaded model."""
        return path if self.prefix is None else f"{self.prefix}.{path}"

    def _within(self, path: str) -> bool:
        return path.startswith(f"{self.prefix}.")


_KNOWN: "weakref.WeakKeyDictionary[nn.Module, OwnClass | None]" = weakref.WeakKeyDictionary()


def own_class_of(model: nn.Module) -> OwnClass | None:
    """What ``config.architectures`` names, if that is another class than the model's; made without weights, once."""
    if model not in _KNOWN:
        _KNOWN[model] = _find_own_class(model)
    return _KNOWN[model]


def _find_own_class(model: nn.Module) -> OwnClass | None:
    config = getattr(model, "config", None)
    name = next(iter(getattr(config, "architectures", None) or []), None)
    if not isinstance(name, str) or name == type(model).__name__:
        return None
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = class_from_configuration(name, copy.deepcopy(config))
    except Exception:  # of whatever a model's constructor runs: such a class has no names to offer
        return None
    if whole is None:
        return None
    inner = [path for path, module in whole.named_modules() if path and type(module) is type(model)]
    names = (path for path, _ in whole.named_modules(remove_duplicate=False))
    return OwnClass(name, inner[0] if inner else None, frozenset(names) - {""})


def class_from_configuration(name: str, config: Any, **options: Any) -> nn.Module | None:
    """A model of the class ``name``, of transformers or of the checkpoint's own code (which was trusted before), on the
    current device; None of any other class. ``options`` are such as ``dtype``."""
    import transformers

    found = getattr(transformers, name, None)
    if found is not None and hasattr(found, "_from_config"):
        whole: nn.Module = found._from_config(config, **options)
        return whole
    for auto, reference in (getattr(config, "auto_map", None) or {}).items():
        if str(reference).rpartition(".")[2] == name and type(config).__module__.startswith("transformers_modules"):
            return getattr(transformers, auto).from_config(config, trust_remote_code=True, **options)
    return None
