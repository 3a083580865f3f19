"""What to write in place of a hook that a model does not have. Every name suggested here works."""

import difflib
import re
from collections.abc import Callable

from torch import nn

from extraction_assets.engine.models.hooks.own_class import own_class_of
from extraction_assets.engine.models.hooks.sites import (
    find_module,
    named_modules,
    spelled,
    text_configuration,
    text_model,
)
from extraction_assets.engine.models.hooks.text_pass import readable_modules
from extraction_assets.engine.models.hooks.transformer_lens_names import Family, family_of

_LIKE_TRANSFORMER_LENS = re.compile(r"^blocks?\b|hook|resid", re.IGNORECASE)


def no_such_module(model: nn.Module, hook: str, works: Callable[[str], bool]) -> str:
    """One sentence on a hook that names no module; ``works`` says whether a hook exists."""
    path, run, _ = spelled(hook)
    if run is not None and path.endswith((".input", ".output")):
        outer, _, own_side = path.rpartition(".")
        return f"the number of a run stands behind the module's path: write {outer}[{run}].{own_side} for {hook!r}"
    dotted = re.sub(r"\[(\d+)\]", r".\1", hook)
    if dotted != hook and works(dotted):
        return f"the model has no module {hook!r}: the members of a list are written {dotted}"
    outer, _, name = path.rpartition(".")
    path = outer if run is None and name in ("input", "output") else path
    own_class, modules = own_class_of(model), named_modules(model)
    if own_class is not None and path in own_class.modules and find_module(model, path, modules) is None:
        return (
            f"hook {hook!r} is in {own_class.name} beyond {type(model).__name__}, and the forward pass that hooks are "
            f"read from does not run it (a head, most often): take a module of the model beneath it, such as "
            f"{', '.join(_shown(model, [_last_block(_names(model))], path, works))}"
        )
    near = _shown(model, _near_names(model, hook, path), path, works)
    return f"the model has no module {path!r}; near names: {', '.join(near)}"


def no_such_name(hook: str, point: str, family: Family, block: int) -> str:
    """One sentence on a TransformerLens name that a family does not have; ``block`` is one that the model has."""
    if point in family.missing:
        return f"the model has no hook {hook!r}: {family.missing[point].replace('.N.', f'.{block}.')}"
    names = transformer_lens_names(family, block)
    near = difflib.get_close_matches(hook, names, n=5, cutoff=0.5) or names
    return f"the model has no hook {hook!r}; near names: {', '.join(near)}"


def transformer_lens_names(family: Family, block: int) -> list[str]:
    """TransformerLens's names in one block of a family, and of the embedding."""
    return [f"blocks.{block}.{name}" for name in family.points] + ["hook_embed"] * (family.hook_embed is not None)


def _near_names(model: nn.Module, hook: str, path: str) -> list[str]:
    """Near names of modules, after those of TransformerLens where the hook looks like one."""
    names, found = _names(model), list[str]()
    family = family_of(text_configuration(model))
    if family is not None and _LIKE_TRANSFORMER_LENS.search(hook):
        count = len(list(model.get_submodule(f"{text_model(model)}{family.blocks}").children()))
        number = re.search(r"\d+", hook)
        block = min(int(number[0]) if number else 0, count - 1)
        known = transformer_lens_names(family.in_block(text_configuration(model), block), block)
        found = difflib.get_close_matches(hook, known, n=3, cutoff=0.5)
    short = _without_prefix(model, path)
    written = (short, f"{text_model(model)}{short}")  # a hook may leave out where the model of text stands
    near = (difflib.get_close_matches(one, names, n=5, cutoff=0.5) for one in written)
    return found + next(filter(None, near), names[:5])


def _names(model: nn.Module) -> list[str]:
    """Modules that a hook can read; with the number of its first run where a module runs more than once."""
    readable = readable_modules(model)
    ordered = {name: readable[name] for name in named_modules(model) if name in readable}
    found = [name if runs == 1 else f"{name}[0]" for name, runs in ordered.items()]
    containers = (nn.ModuleList, nn.ModuleDict)  # not run themselves
    return found or [name for name, module in model.named_modules() if name and not isinstance(module, containers)]


def _last_block(names: list[str]) -> str:
    """The last member of a list of blocks, or the last name."""
    return next((name for name in reversed(names) if re.search(r"\.\d+(\[0\])?$", name)), names[-1])


def _without_prefix(model: nn.Module, path: str) -> str:
    own_class = own_class_of(model)
    outer = own_class.prefix if own_class is not None and own_class.prefix else getattr(model, "base_model_prefix", "")
    return path.removeprefix(f"{outer}.") if outer else path


def _shown(model: nn.Module, names: list[str], path: str, works: Callable[[str], bool]) -> list[str]:
    """Names spelled as a person wrote ``path``: with the wrapper's prefix, if that has it."""
    short = _without_prefix(model, path)
    prefix = path[: len(path) - len(short)]
    spelled_so = [f"{prefix}{name}" if prefix and works(f"{prefix}{name}") else name for name in names]
    return list(dict.fromkeys(spelled_so))
