"""The residual stream of a language model, from its final norm back, followed in a pass without weights.

Nothing is decided by names. A pass of the model's class with its head, on torch's meta device, shows which module the
unembedding reads from (the final norm) and which tensors are added up to what that norm reads (the residual stream). A
hook is part of the stream if its tensor is one of these: what an SAE writes there reaches the final norm as it is.
"""

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, explain_untrusted_code
from extraction_assets.engine.models.hooks.hook import read_at, resolve_hook
from extraction_assets.engine.models.hooks.own_class import class_from_configuration
from extraction_assets.engine.models.hooks.sites import first_tensor
from extraction_assets.engine.models.language_model import configuration

_SAMPLES, _TOKENS = 2, 3
"""Two sizes, so that no other dimension is taken for one of them."""

_SAME = {"_to_copy", "_unsafe_view", "alias", "clone", "contiguous", "detach", "lift_fresh", "reshape", "slice", "view"}
"""Operations that give the numbers of their first argument, as long as the width stays."""
_SUM = {"add", "add_"}


class NotDefined(ValueError):
    """Why there is no logit lens of what an SAE writes, in a sentence without its end."""


class FollowedModel(NamedTuple):
    """A model with its head, on the meta device, and where it keeps what the logit lens needs."""

    whole: Any
    """Of the class that the checkpoint was saved from, or of that with a language model's head."""
    norm: str
    """Path of the final norm in it."""
    head: str
    """Path of the unembedding."""


def follow(checkpoint: LocalCheckpoint, hook: str) -> FollowedModel:
    """The final norm and the unembedding of a model whose ``hook`` is part of its residual stream.

    Reads the configuration alone. Raises NotDefined where the model has no unembedding behind a norm, or where the
    tensor at the hook is not added to what this norm reads as it is; HookError for an unknown hook, UntrustedCodeError
    and CheckpointError as ``load_language_model``.
    """
    whole = _with_head(checkpoint)
    head = whole.get_output_embeddings()
    seen = _Pass()
    with contextlib.ExitStack() as stack:
        stack.callback(head.register_forward_pre_hook(lambda _m, inputs: seen.unembedded.append(inputs[0])).remove)
        base = _without_head(whole, checkpoint)
        site = resolve_hook(base, hook)
        stack.callback(read_at(base, site, seen.at_hook.append).remove)
        stack.enter_context(_noting_modules(whole, seen))
        _run(whole, seen)
    norm = _final_norm(whole, head, seen)
    run = site.run or 0
    stream = seen.summands(seen.inputs[norm])
    if run >= len(seen.at_hook) or not seen.sources(first_tensor(seen.at_hook[run])) & stream:
        raise NotDefined(
            f"hook {hook} is not part of the residual stream: what stands there is not added, as it is, to what the "
            f"final norm {norm} reads"
        )
    return FollowedModel(whole, norm, _path_of(whole, head))


class _Pass(TorchDispatchMode):
    """One forward pass: which tensors were made of which, and what stood at the modules."""

    def __init__(self) -> None:
        super().__init__()
        self.unembedded: list[Any] = []
        self.at_hook: list[Any] = []
        self.inputs: dict[str, Any] = {}
        """First argument of each module that gave a tensor."""
        self.outputs: dict[str, Tensor] = {}
        self._made: dict[int, list[tuple[str, tuple[Any, ...], dict[str, Any]]]] = {}
        self._alive: list[Any] = []
        """Every tensor of the pass, so that no other gets its id; on the meta device they take no memory."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            self._alive.append((output, args))
            name = func._schema.name.rpartition("::")[2]
            self._made.setdefault(id(output), []).append((name, args, kwargs or {}))
        return output

    def sources(self, tensor: Any) -> set[int]:
        """The ids of a tensor and of those that it is a view or a copy of, over the whole width."""
        return self._back(tensor, sums=False)

    def summands(self, tensor: Any) -> set[int]:
        """The ids of what a tensor is the sum of, step by step: of all tensors that the residual stream is or was."""
        return self._back(tensor, sums=True)

    def _back(self, tensor: Any, *, sums: bool) -> set[int]:
        found: set[int] = set()
        todo = [tensor]
        while todo:
            one = todo.pop()
            if not isinstance(one, Tensor) or id(one) in found or one.dim() < 2:
                continue
            found.add(id(one))
            for name, args, options in self._made.get(id(one), ()):
                if name in _SAME:
                    todo += [args[0]] if args[0].shape[-1:] == one.shape[-1:] else []
                elif sums and name in _SUM and options.get("alpha", 1) == 1:
                    todo += [arg for arg in args[:2] if isinstance(arg, Tensor) and arg.shape[-1:] == one.shape[-1:]]
        return found


def _with_head(checkpoint: LocalCheckpoint) -> Any:
    """The class that the checkpoint was saved from if that has an unembedding, else that of a causal language model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    config, trusted = configuration(checkpoint), checkpoint.trust_remote_code
    name = next(iter(getattr(config, "architectures", None) or []), None)
    options: dict[str, Any] = {"dtype": torch.bfloat16}  # a mixture of experts has shapes for no other on this device
    with torch.device("meta"), warnings.catch_warnings(), explain_untrusted_code(checkpoint.folder):
        warnings.simplefilter("ignore")
        whole: Any = None
        if isinstance(name, str):
            whole = class_from_configuration(name, copy.deepcopy(config), **options)
        if _unembedding_of(whole) is None and type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
            whole = AutoModelForCausalLM.from_config(config, trust_remote_code=trusted, **options)
    if _unembedding_of(whole) is None:
        kind = name or getattr(config, "model_type", "without a type")
        raise NotDefined(f"a model of class {kind} has no unembedding")
    # A pass on this device may ask for no number. Without a cache it asks whether a sample is several in one, and the
    # masks of fused attention whether all of a mask that a model makes itself is true.
    whole.config.get_text_config().use_cache = True
    whole.set_attn_implementation("eager")
    return whole.eval()


def _unembedding_of(whole: Any) -> nn.Module | None:
    """What gives logits of a model's vocabulary."""
    try:
        found = None if whole is None else whole.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(getattr(found, "weight", None), Tensor) else None


def _without_head(whole: Any, checkpoint: LocalCheckpoint) -> nn.Module:
    """The part of ``whole`` that hooks are named in: what ``AutoModel`` gives."""
    from transformers import MODEL_MAPPING

    expected = MODEL_MAPPING.get(type(whole.config), None)
    inner = [module for module in whole.modules() if type(module) is expected]
    base = inner[0] if inner else whole.base_model
    assert isinstance(base, nn.Module)
    return base


@contextlib.contextmanager
def _noting_modules(whole: nn.Module, seen: _Pass) -> Iterator[None]:
    def noting(path: str) -> Any:
        def note(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            tensor = first_tensor(output)
            if isinstance(tensor, Tensor):
                given = inputs[0] if inputs else named.get("hidden_states", next(iter(named.values()), None))
                seen.inputs[path], seen.outputs[path] = given, tensor

        return note

    handles = [one.register_forward_hook(noting(path), with_kwargs=True) for path, one in whole.named_modules() if path]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(whole: nn.Module, seen: _Pass) -> None:
    """The pass. Raises NotDefined with what the model raises where it needs more than token ids, or numbers."""
    ids = torch.zeros(_SAMPLES, _TOKENS, dtype=torch.int64, device="meta")
    try:
        with seen, torch.no_grad():
            whole(input_ids=ids)
    except Exception as error:  # of any library and any kind
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        name = type(whole).__name__
        raise NotDefined(f"a pass of {name} over text, without weights, ends with: {first_line}") from error


def _final_norm(whole: nn.Module, head: nn.Module, seen: _Pass) -> str:
    """Path of the innermost module that gives what the unembedding reads."""
    name = type(whole).__name__
    if len(seen.unembedded) != 1:
        raise NotDefined(f"{name} runs its unembedding {len(seen.unembedded)} times over a text")
    read = seen.sources(seen.unembedded[0])
    givers = [path for path, tensor in seen.outputs.items() if id(tensor) in read]
    if not givers:
        raise NotDefined(f"{name} computes what its unembedding reads outside of its modules")
    return max(givers, key=lambda path: path.count("."))


def _path_of(whole: nn.Module, module: nn.Module) -> str:
    return next(path for path, one in whole.named_modules() if one is module)
