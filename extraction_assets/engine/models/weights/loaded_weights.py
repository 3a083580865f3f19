"""Whether the weights that transformers loaded are those of the files, for what a forward pass uses.

transformers fills weights that are missing or of another shape at random, drops what it has no place for, converts any
type to the model's, and says so in its log at most. A later layer, a pooler or a vision tower without weights does no
harm to a hook before it, so what counts is what a pass up to the hooks uses (``parameters_in_use``).
"""

import contextlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from extraction_assets.engine.file_boundary.checkpoint_file import shown
from extraction_assets.engine.file_boundary.safetensors_file import FLOATS
from extraction_assets.engine.findings import Finding
from extraction_assets.engine.models.files.model_folder import INDEX, WEIGHTS, model_file
from extraction_assets.engine.models.files.stored_weights import StoredWeights
from extraction_assets.engine.models.weights.computed_buffers import is_computed
from extraction_assets.engine.models.weights.parameters_in_use import InUse
from extraction_assets.engine.models.weights.unused_keys import sort_unused

_SHOWN = 4
"""Names of each kind that a message has."""

_MISSING = "not in the files"
_MISMATCHED = "of another shape in the files"
_UNKNOWN_TYPE = "stored in a type that only a quantization_config explains"
_AMBIGUOUS = "in the files more than once, with different numbers"

_UNMERGED = re.compile(r"^(\S[^|]*?) *\| *(?:\x1b\[[0-9;]*m)?CONVERSION", re.MULTILINE)
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}


class LoadingInfo(NamedTuple):
    """What ``from_pretrained(output_loading_info=True)`` says."""

    missing: frozenset[str]
    unexpected: frozenset[str]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """Parameter -> its shape in the file, and in the model."""

    @classmethod
    def of(cls, loading_info: Mapping[str, Any]) -> "LoadingInfo":
        shapes = {name: (tuple(stored), tuple(expected)) for name, stored, expected in loading_info["mismatched_keys"]}
        return cls(frozenset(loading_info["missing_keys"]), frozenset(loading_info["unexpected_keys"]), shapes)

    def with_shapes_of(self, loaded: nn.Module, made: nn.Module) -> "LoadingInfo":
        """With every tensor of ``loaded`` whose shape is another in ``made``, the same model by its configuration: what
        is unpacked, earlier versions of transformers take in any shape."""
        expected = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
        held = {name: tuple(tensor.shape) for name, tensor in loaded.state_dict().items()}
        wrong = {name: (shape, expected[name]) for name, shape in held.items() if expected.get(name, shape) != shape}
        return self._replace(mismatched={**wrong, **self.mismatched})


class LoadedWeights:
    """Where a model is not what its files say.

    ``module`` is the model as transformers loaded it, on any device. What a ``quantization_config`` packs into other
    types and keys, its quantizer unpacks; what it finds missing or without a place counts all the same. Looks at
    names and types; at numbers only of what ``problems`` is asked about, each tensor once.
    """

    def __init__(
        self, module: nn.Module, stored: StoredWeights, info: LoadingInfo, *, is_quantized: bool = False
    ) -> None:
        self._module, self._stored, self._info = module, stored, info
        self._held: dict[str, Tensor] = module.state_dict(keep_vars=True)
        self._keys, rivals = keys_by_name(module, stored)
        self._faults: dict[str, str] = {}
        """Parameter or buffer -> what is wrong with it."""
        for name in () if is_quantized else self._held:
            if name in rivals and not are_equal(stored, self._keys[name]):
                self._faults[name] = _AMBIGUOUS
            elif self._unknown_types(name):
                self._faults[name] = _UNKNOWN_TYPE
        missing = [name for name in info.missing if not is_computed(module, name)]
        self._faults |= dict.fromkeys(info.mismatched, _MISMATCHED) | dict.fromkeys(missing, _MISSING)
        unused = sort_unused(module, info.unexpected, self._keys)
        self._unused = unused.owners | self._copies(unused.copies)
        """What the model has no place for, with the innermost module that it would belong to."""
        self._outside = unused.outside
        self._finite: dict[str, bool] = {}

    def refuse_problems(self, use: InUse, hooks: Sequence[str]) -> None:
        """Raises CheckpointError with the ``problems`` of what a pass up to ``hooks`` uses."""
        problems = self.problems(use)
        if not problems:
            return
        if use.failure:
            problems.append(f"all weights are checked, as a pass of few tokens could not be followed ({use.failure})")
        named = ", ".join(repr(hook) for hook in hooks[:_SHOWN]) + (", …" if len(hooks) > _SHOWN else "")
        raise model_file(self._stored.folder, self._stored.file).error(
            f"does not give the weights that hook {named} depends on: {'; '.join(problems)}"
        )

    def problems(self, use: InUse) -> list[str]:
        """What is wrong with the weights in ``use``, with their names: they are not in the files, or otherwise than the
        model has them; the files hold more for a module in ``use`` than the model took; a number is not finite.

        One synchronisation on a GPU.
        """
        found: dict[str, list[str]] = defaultdict(list)
        for name, fault in self._faults.items():
            if name in use.tensors:
                found[fault].append(name)
        problems = [self._described(fault, sorted(names)) for fault, names in sorted(found.items())]
        unused = [self._in_files(name) for name, owner in self._unused.items() if owner in use.modules]
        if unused:
            problems.append(f"in the files without a place in the model: {_some(sorted(unused))}")
        return problems or self._not_finite(use)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong with any weight of the model, used or not. Looks at all numbers, once."""
        everything = InUse(frozenset(self._held), frozenset())
        return all(owner is None for owner in self._unused.values()) and not self.problems(everything)

    def findings(self) -> list[Finding]:
        """Warnings: what the files hold outside of the model without the name of a head, and shards not read."""
        where, texts = f"language model {shown(str(self._stored.folder))[1:-1]}", []
        if self._outside:
            named = _some(self._in_files(name) for name in self._outside)
            texts.append(f"{self._stored.file} holds {named} beside the model, taken for a head that no hook reads")
        if self._stored.not_read:
            named = _some(map(_plain, self._stored.not_read))
            texts.append(f"{WEIGHTS} is read, not {named} of {INDEX}: remove those that are not meant")
        return [Finding("warning", f"{where}: {text}") for text in texts]

    def _copies(self, copies: Mapping[str, str]) -> dict[str, str | None]:
        """Further keys of weights that the files hold, under names of wrappers: equal ones do no harm, and a weight
        of which others have other numbers is at fault itself. Where the files hold no other, it is missing."""
        for key, name in copies.items():
            both = [*self._keys.get(name, ()), *self._keys.get(key, [key])]
            if name not in self._faults and not are_equal(self._stored, both):
                self._faults[name] = _AMBIGUOUS
        return dict.fromkeys(copies)

    def _unknown_types(self, name: str) -> list[str]:
        """Types in the files of which converting to a floating point parameter does not give its numbers."""
        types = {self._stored.tensors[key].dtype for key in self._keys.get(name, ())}
        return sorted(types - FLOATS) if self._held[name].is_floating_point() else []

    def _described(self, fault: str, names: list[str]) -> str:
        """One kind of fault with some names of it."""
        details = {_MISSING: self._place, _MISMATCHED: self._shapes, _UNKNOWN_TYPE: self._types}.get(fault)
        listed = _some([_plain(name) + (details(name) if details else "") for name in names])
        text = f"{fault}: {listed}"
        if fault != _MISSING or not self._unused:
            return text
        unused = sorted(self._in_files(name) for name in self._unused)
        return f"{text} (which hold {len(unused)} without a place in the model, such as {unused[0]})"

    def _place(self, name: str) -> str:
        """The file that the index names for a missing weight."""
        keys = [key for key in self._stored.absent if key == name or key.endswith(f".{name}")]
        return f" (in {_plain(self._stored.absent[keys[0]])} by the index)" if keys else ""

    def _shapes(self, name: str) -> str:
        stored, expected = self._info.mismatched[name]
        return f" {stored}, expected {expected}"

    def _types(self, name: str) -> str:
        return f" ({', '.join(self._unknown_types(name))})"

    def _in_files(self, name: str) -> str:
        """How the files call what transformers calls ``name``."""
        return _plain(self._keys.get(name, [name])[0])

    def _not_finite(self, use: InUse) -> list[str]:
        requested = {name: self._held[name] for name in sorted(use.tensors) if name not in self._finite}
        wrong = not_finite(requested)
        self._finite |= {name: name not in wrong for name in requested}
        names = [name for name in sorted(use.tensors) if not self._finite[name]]
        if not names:
            return []
        kind = str(self._held[names[0]].dtype).removeprefix("torch.")
        stored = {self._stored.tensors[key].dtype for name in names for key in self._keys.get(name, ())}
        hint = ", which has no room for them: set language_model.dtype to float32"
        listed = _some([_plain(name) for name in names])
        return [f"NaN or infinite in {kind}: {listed}{hint if stored - {_TYPES.get(kind)} else ''}"]


@contextlib.contextmanager
def without_load_report(stored: StoredWeights) -> Iterator[None]:
    """Keeps transformers from logging what it could not load, most of which does no harm here.

    What it cannot merge from its parts it names in that report alone: raised as CheckpointError with the names.
    """
    logger, unmerged = logging.getLogger("transformers.modeling_utils"), list[str]()
    level, shown_from = logger.level, logger.getEffectiveLevel()

    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        unmerged.extend(_UNMERGED.findall(text))
        return "LOAD REPORT" not in text and record.levelno >= shown_from

    logger.addFilter(keep)
    logger.setLevel(min(shown_from, logging.WARNING))  # the report is one, which others (sae-lens) may have turned off
    try:
        yield
    except RuntimeError as error:
        if not unmerged:
            raise
        raise model_file(stored.folder, stored.file).error(
            f"holds other parts of {_some(map(_plain, unmerged))} than transformers merges it from"
        ) from error
    finally:
        logger.setLevel(level)
        logger.removeFilter(keep)


def not_finite(tensors: Mapping[str, Tensor]) -> set[str]:
    """Names of the floating point tensors that hold a NaN or an infinity; numbers of one byte are taken for finite.

    One pass without memory of their size, and one synchronisation.
    """
    looked_at = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.element_size() > 1 and tensor.numel()
    ]
    if not looked_at:
        return set()
    with torch.inference_mode():
        extremes = [torch.stack(torch.aminmax(tensors[name].detach())).double() for name in looked_at]
        finite = torch.stack(extremes).isfinite().all(1).tolist()  # a NaN is its tensor's minimum and maximum
    return {name for name, is_finite in zip(looked_at, finite, strict=True) if not is_finite}


def keys_by_name(module: nn.Module, stored: StoredWeights) -> tuple[dict[str, list[str]], set[str]]:
    """{name in the model: keys of the files} as transformers renames them, and the names that have rivals: several keys
    that are not merged, of which it takes the first and drops the others in silence.

    The keys that are merged, such as the experts of a mixture, stand under one name, that of the merged weight.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    transforms = get_model_conversion_mapping(module, None, getattr(module, "hf_quantizer", None))
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    prefix, names = module.base_model_prefix, module.state_dict()
    keys: dict[str, list[str]] = defaultdict(list)
    rivals: set[str] = set()
    for key in sorted(stored.tensors, key=dot_natural_key):
        name, merged = rename_source_key(key, renamings, converters, prefix, names)
        if name not in names and key in names:
            name, merged = rename_source_key(key, [], [], prefix, names)
        keys[name].append(key)
        if key in stored.repeated or (merged is None and len(keys[name]) > 1):
            rivals.add(name)
    return dict(keys), rivals


def are_equal(stored: StoredWeights, keys: Sequence[str]) -> bool:
    """Whether all that the files hold under ``keys`` is the same."""
    from safetensors import safe_open

    found = []
    for key in keys:
        for name in stored.repeated.get(key, [stored.tensors[key].file]):
            with safe_open(stored.folder / name, framework="pt") as file:
                found.append(file.get_tensor(key))
    return all(torch.equal(found[0], other) for other in found[1:])


def _plain(name: str) -> str:
    """A name of a file, for a message."""
    return shown(name)[1:-1]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
