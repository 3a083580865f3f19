"""Which captured tensors a model writes into after they were captured."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from extraction_assets.engine.models.hooks.sites import Site


class WriteWatch(TorchDispatchMode):
    """While active, notes writes into the storage of tensors given to ``add``, through whatever view or alias.

    Sees every operator of the dispatcher, under inference mode too (where tensors have no version counter), and asks
    its schema what it writes: in-place operators, ``out=``, ``_foreach_*_`` and custom operators. A kernel launched
    beside the dispatcher has no schema, so each tensor is also compared with a copy of it (``rewritten``).
    """

    def __init__(self) -> None:
        super().__init__()
        self._sites: dict[int, set[Site]] = {}
        """Captured sites by storage."""
        self._added: list[tuple[Site, Tensor, Tensor]] = []
        """Site, its tensor (kept, so that its storage is not used for another one) and a copy of that."""
        self._written: set[Site] = set()
        self._made: set[int] = set()
        """Storages allocated by operators of this pass."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in written_by(func, args, kwargs):
            self._written |= self._sites.get(_storage(tensor), set())
        result = func(*args, **kwargs)
        given = set(map(_storage, _tensors((args, kwargs))))
        self._made.update(storage for storage in map(_storage, _tensors((result,))) if storage not in given)
        return result

    def begin_pass(self) -> None:
        """Begins a forward pass: later allocations belong to it."""
        self._made = set()

    def add(self, site: Site, tensor: Tensor) -> None:
        """Watches a captured tensor; one that this pass did not allocate, a model's own buffer, counts as written."""
        self._added.append((site, tensor, tensor.clone()))
        storage = _storage(tensor)
        self._sites.setdefault(storage, set()).add(site)
        if storage not in self._made:
            self._written.add(site)

    def rewritten(self) -> set[Site]:
        """Sites whose tensor was written into after it was added. One synchronisation for each tensor on a GPU."""
        changed = {site for site, tensor, before in self._added if not _same_bits(tensor, before)}
        return self._written | changed


def written_by(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors that a call of an operator writes into, by its schema; of a list of tensors, each."""
    for number, name, by_name_alone in _arguments_written_by(func):
        value = kwargs.get(name) if number >= len(args) or by_name_alone else args[number]
        yield from _tensors((value,))


@cache
def _arguments_written_by(func: Any) -> list[tuple[int, str, bool]]:
    """Place and name of each, and whether it has no place in a call."""
    return [
        (number, argument.name, argument.kwarg_only)
        for number, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among values of an operator and in their lists. Torch's own walk through trees takes longer than the
    operators of a small model."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _storage(tensor: Tensor) -> int:
    """Identity of a tensor's storage; of one without (a wrapper of other tensors), its own."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return id(tensor)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape and dtype are equal, a NaN equal to itself."""
    return bool(((one == other) | ((one != one) & (other != other))).all())
