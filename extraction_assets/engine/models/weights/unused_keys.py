"""Which keys of the files a model should have a place for.

transformers drops a key that its class has no place for. What that means depends on where the key lies:

- Beneath a module of the model (``owner_of`` gives its path) the key is part of what that module computed when it was
  saved. It counts as soon as a pass up to the hooks begins that module; the model itself is the module "".
- Heads, other towers and layers that predict further tokens run behind or beside the hooks. They are recognised by
  their names, because no list of all classes with a head exists. Names only count outside of numbered blocks.
- Where the weights carry the prefix of the model inside its head (``model.``), a key without it lies outside of the
  model. It may be a head of an unknown class, so it is worth a warning and no error.
- What training wrappers put before or into names is taken off first.
"""

import re
from collections.abc import Collection
from typing import NamedTuple

from torch import nn

_WRAPPED = re.compile(r"(^|\.)((_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+")
_WRAPPERS = re.compile(r"^(base_model\.model\.|module\.)+")
"""Of torch.compile and sharding at any depth; of PEFT and data parallel training before everything."""

_LEFTOVERS = re.compile(
    r"(^|\.)((attn|attention)\.(masked_)?bias|causal_mask|inv_freq|(cos|sin)_cached|position_ids|token_type_ids|version)$"
)
"""What earlier versions of transformers stored and computes now: causal masks, positions and their angles."""

_BEHIND_OR_BESIDE = re.compile(
    r"(^|_)heads?($|_)|^cls$|^scorer?$|classif|pooler|predict|^pred_layer$|^qa_outputs$|logits|sequence_summary"
    r"|^embed_out$|unembed|^vocab_|reward|critic"
    r"|^mtp|multi_token|nextn|medusa|eagle"
    r"|vision|visual|image|video|audio|speech|(^|_)tower|multi_modal|multimodal|^mm_|connector",
    re.IGNORECASE,
)
"""Heads, layers that predict further tokens, other towers and what connects them to the text."""
_ONLY_OUTSIDE = ("dense", "decoder")
"""Heads of some classes, whose names stand for other things inside a model."""


class UnusedKeys(NamedTuple):
    """The keys that a model has no place for, without those that are known to be harmless wherever they lie."""

    owners: dict[str, str | None]
    """Key -> path of the innermost module that it lies in, "" for the model itself; None for what no pass up to a
    hook uses, or may use."""
    outside: list[str]
    """Those that lie outside of the model, without a name that says what they are."""
    copies: dict[str, str]
    """Key -> the weight of the model that it names once the names of wrappers are taken off."""


def sort_unused(module: nn.Module, unexpected: Collection[str], keys: dict[str, list[str]]) -> UnusedKeys:
    """What ``unexpected``, names that the model has no place for, would belong to.

    ``keys`` {name in the model: keys of the files} is that of the weights (``keys_by_name``).
    """
    modules = {path for path, _ in module.named_modules(remove_duplicate=False)}
    held = set(module.state_dict(keep_vars=True))
    computed = {name for name, _ in module.named_buffers(remove_duplicate=False)} - held
    prefix = f"{module.base_model_prefix}."
    is_prefixed = any(key.startswith(prefix) and key != name for name in held for key in keys.get(name, ()))
    found = UnusedKeys({}, [], {})
    for key in sorted(unexpected):
        unwrapped = _without_wrappers(key, modules)
        is_inside = unwrapped.split(".")[0] in modules or unwrapped.startswith(prefix)
        name = unwrapped if unwrapped.split(".")[0] in modules else unwrapped.removeprefix(prefix)
        if _LEFTOVERS.search(name) or name in computed:
            continue
        if name in held:
            found.copies[key] = name
        found.owners[key] = _owner(name, modules)
        if found.owners[key] == "" and is_prefixed and not is_inside:
            found.owners[key] = None
            if name.split(".")[0] not in _ONLY_OUTSIDE:
                found.outside.append(key)
    return found


def _without_wrappers(key: str, modules: Collection[str]) -> str:
    """``key`` as the model would call it if it had not been wrapped."""
    name = _WRAPPED.sub(r"\1", key)
    return name if name.split(".")[0] in modules else _WRAPPERS.sub("", name)


def _owner(name: str, modules: Collection[str]) -> str | None:
    """Path of the innermost module that ``name`` lies in; None for what lies behind or beside all blocks."""
    path = name
    while path and path not in modules:
        path = path.rpartition(".")[0]
    first = name[len(path) :].strip(".").split(".")[0]
    is_in_block = any(part.isdecimal() for part in path.split("."))
    return None if not is_in_block and _BEHIND_OR_BESIDE.search(first) else path
