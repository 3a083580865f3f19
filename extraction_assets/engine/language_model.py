"""A Hugging Face model up to the deepest hook: token ids in, hook outputs out."""

import contextlib
import difflib
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class HookError(ValueError):
    """A hook that the model does not have, or whose output an SAE cannot read."""


class _DeepestHookReached(Exception):
    """Ends the forward pass: every hook has fired, so no later block and no LM head runs."""


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LanguageModel:
    """A model on one device with hooks on some of its modules."""

    def __init__(self, module: nn.Module, hooks: Sequence[str]) -> None:
        self.module = module.eval()
        self.compiled = False
        """Whether ``compile_blocks`` was called, which can change last bits."""
        self.hooks = tuple(dict.fromkeys(hooks))
        self._captured: dict[str, Tensor] = {}
        self._hooked = {hook: find_module(self.module, hook) for hook in self.hooks}
        for hook, hooked in self._hooked.items():
            hooked.register_forward_hook(self._capture(hook))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @torch.inference_mode()
    def activations(self, token_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Output of every hook for one padded batch.

        ``token_ids`` int64 [B, T] and ``attention_mask`` bool [B, T], padded on the right (so a token's
        position is its index) -> {hook: [B, T, D]} in the model's dtype. The pass stops at the deepest hook.
        Raises HookError where a hook never fires or does not give [B, T, D].
        """
        self._captured = {}
        with contextlib.suppress(_DeepestHookReached):  # the way a complete pass ends
            self.module(input_ids=token_ids, **self._mask_option(attention_mask))
        captured, self._captured = self._captured, {}
        missing = [hook for hook in self.hooks if hook not in captured]
        if missing:
            raise HookError(f"hook {missing[0]!r} is part of the model but did not run in its forward pass")
        for hook, output in captured.items():
            if output.dim() != 3 or output.shape[:2] != token_ids.shape:
                raise HookError(
                    f"hook {hook!r} gives a tensor of shape {tuple(output.shape)}, "
                    f"expected [samples, positions, width] = [{token_ids.shape[0]}, {token_ids.shape[1]}, …]"
                )
        return captured

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compiles the repeated blocks by ``torch.compile``, for the one shape of a forward batch.

        The first forward pass waits for it: once for all blocks of a kind. A block with a hook inside stays as it is.
        """
        hooked = set(self._hooked.values())
        for block in repeated_blocks(self.module):
            if not hooked & (set(block.modules()) - {block}):
                block.forward = torch.compile(block.forward, dynamic=False, backend=backend)
        self.compiled = True

    def hook_widths(self) -> dict[str, int]:
        """D of every hook, from a forward pass over one token."""
        one = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
        return {hook: out.shape[-1] for hook, out in self.activations(one, torch.ones_like(one).bool()).items()}

    @cached_property
    def is_causal(self) -> bool:
        """Whether attention only looks back."""
        return any(getattr(module, "is_causal", False) is True for module in self.module.modules())

    def _mask_option(self, attention_mask: Tensor) -> dict[str, Any]:
        """Causal attention never sees padding on the right, so it gets no mask. With one, transformers asks whether
        it is all ones (a synchronisation) and chooses another attention kernel if it is, so that a sample's last
        bits would depend on its neighbours in the batch."""
        return {} if self.is_causal else {"attention_mask": attention_mask.long()}

    def _capture(self, hook: str) -> Any:
        def forward_hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = output[0] if isinstance(output, (tuple, list)) else output
            if not isinstance(tensor, Tensor):
                raise HookError(f"hook {hook!r} gives a {type(tensor).__name__}, not a tensor")
            self._captured.setdefault(hook, tensor)
            if len(self._captured) == len(self.hooks):
                raise _DeepestHookReached

        return forward_hook


def load_language_model(
    path: str,
    hooks: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    dtype: str = "auto",
    revision: str | None = None,
) -> LanguageModel:
    """The model in folder ``path`` (or of that hub id), without its LM head, on ``device``.

    ``dtype`` ``auto`` is the checkpoint's own on a GPU and float32 on a CPU, where 16-bit arithmetic is slow and
    coarse. Weights come from safetensors alone, never from a pickle. Raises HookError for an unknown hook.
    """
    from transformers import AutoModel

    device = torch.device(device)
    wanted: Any = DTYPES.get(dtype, "auto" if device.type == "cuda" else torch.float32)
    module = AutoModel.from_pretrained(path, revision=revision, dtype=wanted, use_safetensors=True)
    module.config.get_text_config().use_cache = False  # keys and values of every block would be kept for nobody
    return LanguageModel(module.to(device), hooks)


def probe_hooks(path: str, hooks: Sequence[str], *, revision: str | None = None) -> dict[str, int]:
    """Width D of every hook of a model, from its configuration alone where it can be: no weight is read.

    Runs the model on torch's meta device, which computes shapes only; a model that wants to look at numbers on
    the way is loaded instead. Raises HookError for an unknown hook.
    """
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(path, revision=revision)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = AutoModel.from_config(config)
    try:
        return LanguageModel(module, hooks).hook_widths()
    except (RuntimeError, NotImplementedError):
        return load_language_model(path, hooks, revision=revision).hook_widths()


def context_length(path: str, *, revision: str | None = None) -> int | None:
    """Positions that a model was made for, by its configuration; None where that does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, revision=revision).get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def find_module(model: nn.Module, hook: str) -> nn.Module:
    """The module at a dotted path, with or without the prefix that a wrapper puts before it
    (``model.layers.3`` of ``LlamaForCausalLM`` is ``layers.3`` of ``LlamaModel``).

    Raises HookError that lists near names.
    """
    modules = dict(model.named_modules())
    prefix = getattr(model, "base_model_prefix", "")
    candidates = [hook, hook.removeprefix(f"{prefix}."), f"{prefix}.{hook}"]
    found = next((modules[name] for name in candidates if name and name in modules), None)
    if found is not None:
        return found
    names = [name for name in modules if name]
    near = difflib.get_close_matches(candidates[1], names, n=5, cutoff=0.5) or names[:5]
    shown = ", ".join(f"{prefix}.{name}" if hook.startswith(f"{prefix}.") else name for name in near)
    raise HookError(f"the model has no module {hook!r}; near names: {shown}")


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a model is a stack of: the modules of its longest list."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def checkpoint_files(path: str, *, revision: str | None = None) -> list[Path]:
    """The files that decide what the model computes: its configuration and weights, sorted by name.

    ``path`` is a folder or a hub id, which is downloaded unless the local cache has its newest commit.
    """
    folder = resolve_checkpoint(path, revision=revision)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    missing = [file.name for file in files if not file.is_file()]
    if missing or len(files) == 1:
        raise FileNotFoundError(f"{folder} is not a language model: it lacks config.json or *.safetensors")
    return files


def resolve_checkpoint(path: str, *, revision: str | None = None) -> Path:
    """The local folder of a model or SAE given as a folder or a hub id; FileNotFoundError says what was tried."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or path.startswith("."):
        raise FileNotFoundError(f"no checkpoint at {folder}: the folder does not exist")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(path, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"])
        )
    except Exception as error:
        raise FileNotFoundError(
            f"no checkpoint {path!r}: there is no such folder, and the Hugging Face hub did not give it ({error})"
        ) from error
