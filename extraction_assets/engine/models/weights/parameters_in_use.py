"""Which parameters a forward pass uses until it stops, observed in the pass itself and not by their names."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from extraction_assets.engine.file_boundary.checkpoint_file import one_line


class InUse(NamedTuple):
    """What a forward pass used of a module."""

    tensors: frozenset[str]
    """Names of the parameters and persistent buffers that modules which ran hold, or that something else read."""
    modules: frozenset[str]
    """Paths of modules that began to run, "" for the model itself, and of all beneath those that ran to their end."""
    failure: str = ""
    """Why the pass could not be followed, so that all of the module counts."""


def parameters_in_use(module: nn.Module, run: Callable[[], object]) -> InUse:
    """What ``run``, a forward pass of ``module`` that may stop early, uses.

    Everything beneath a module that ran to its end counts, as the experts of a mixture that no token of this pass was
    sent to. Of a module in whose midst the pass stopped, only what was read: the rest may lie behind the hook.
    If the pass fails, everything counts, because nothing is known; the error appears again where the pass is needed.
    """
    began: set[str] = set()
    ended: set[str] = set()
    handles = []
    for path, part in module.named_modules(remove_duplicate=False):
        handles.append(part.register_forward_pre_hook(lambda *_, path=path: began.add(path), prepend=True))
        handles.append(part.register_forward_hook(lambda *_, path=path: ended.add(path), prepend=True))
    held = module.state_dict(keep_vars=True)
    reads = _Reads(held)
    try:
        with reads:
            run()
    except Exception as error:  # of any library and any kind: then nothing is known of what is used
        paths = frozenset(path for path, _ in module.named_modules(remove_duplicate=False))
        return InUse(frozenset(held), paths, one_line(error))
    finally:
        for handle in handles:
            handle.remove()
    beneath = {path for path, _ in module.named_modules(remove_duplicate=False) if _is_beneath(path, ended)}
    tensors = {name for name in held if name in reads.names or name.rpartition(".")[0] in beneath}
    return InUse(frozenset(tensors), frozenset(beneath | began))


def _is_beneath(path: str, ended: set[str]) -> bool:
    """Whether ``path`` or what it lies in is among ``ended``."""
    parts = path.split(".")
    return "" in ended or any(".".join(parts[:count]) in ended for count in range(1, len(parts) + 1))


class _Reads(TorchDispatchMode):
    """Notes the names of tensors that operations read, by their storage: what is a view of one, or tied to it, too."""

    def __init__(self, held: dict[str, Tensor]) -> None:
        super().__init__()
        self.names: set[str] = set()
        self._names_of: dict[int, list[str]] = defaultdict(list)
        for name, tensor in held.items():
            if isinstance(tensor, Tensor):  # a module's extra state may be anything
                self._names_of[_storage(tensor)].append(name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(value, Tensor):
                self.names.update(self._names_of.get(_storage(value), ()))
        return func(*args, **(kwargs or {}))


def _storage(tensor: Tensor) -> int:
    """Where a tensor's numbers lie; a number of its own for a tensor without storage, as of some quantizers."""
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (RuntimeError, NotImplementedError):
        return id(tensor)
