"""A Hugging Face model up to the deepest hook: token ids in, hook outputs out."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extraction_assets.engine.hooks import HookError, Site, read_at, resolve_hook, text_configuration
from extraction_assets.engine.models.small_files import PATTERNS, wanted_from_hub
from extraction_assets.engine.models.tokenizers import TokenizerChoice, read_tokenizer


class UntrustedCodeError(ValueError):
    """A model or tokenizer that needs Python code of its own, which nobody said to trust."""


class _DeepestHookReached(Exception):
    """Ends the forward pass: every hook has fired, so no later block and no LM head runs."""


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LanguageModel:
    """A model on one device with hooks on some of its tensors.

    ``hooks`` are what ``resolve_hook`` takes. Two spellings of one tensor are captured once. Raises HookError.
    """

    def __init__(self, module: nn.Module, hooks: Sequence[str]) -> None:
        self.module = module.eval()
        self.compiled = False
        """Whether ``compile_blocks`` was called, which can change last bits."""
        self._sites = {hook: resolve_hook(self.module, hook) for hook in hooks}
        self.hooks = tuple(self._sites)
        self._captured: dict[Site, Tensor] = {}
        self._wanted = dict.fromkeys(self._sites.values())
        for site in self._wanted:
            read_at(self.module, site, partial(self._capture, site))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.module.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @torch.inference_mode()
    def activations(self, token_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """What every hook reads, for one padded batch.

        ``token_ids`` int64 [B, T] and ``attention_mask`` bool [B, T], padded on the right (so a token's
        position is its index) -> {hook: [B, T, D]} in the model's dtype. The pass stops at the deepest hook.
        Raises HookError where a hook never fires or does not give [B, T, D].
        """
        return self._run(token_ids, **self._mask_option(attention_mask))

    @torch.inference_mode()
    def hook_widths(self) -> dict[str, int]:
        """D of every hook, from a forward pass over one token."""
        one = torch.zeros(1, 1, dtype=torch.int64, device=self.device)
        # Without a mask, for nothing is padding: a model given one looks at its numbers, which a meta device has not.
        return {hook: output.shape[-1] for hook, output in self._run(one).items()}

    @cached_property
    def is_causal(self) -> bool:
        """Whether all attention to text only looks back. Attention that does not say so counts as looking ahead."""
        config = text_configuration(self.module)
        if getattr(config, "is_causal", True) is False:  # a decoder made an encoder, whose modules do not know of it
            return False
        model_type = getattr(config, "model_type", None)
        of_text = [
            module.is_causal
            for module in self.module.modules()
            if isinstance(getattr(module, "is_causal", None), bool)
            and getattr(getattr(module, "config", None), "model_type", model_type) == model_type
        ]
        return bool(of_text) and all(of_text)

    def _run(self, token_ids: Tensor, **options: Any) -> dict[str, Tensor]:
        self._captured = {}
        with contextlib.suppress(_DeepestHookReached):  # the way a complete pass ends
            self.module(input_ids=token_ids, **options)
        captured, self._captured = self._captured, {}
        for hook, site in self._sites.items():
            if site not in captured:
                raise HookError(f"hook {hook!r} is part of the model but did not run in its forward pass")
            output = captured[site]
            if output.dim() != 3 or output.shape[:2] != token_ids.shape:
                raise HookError(
                    f"hook {hook!r} gives a tensor of shape {tuple(output.shape)}, "
                    f"expected [samples, positions, width] = [{token_ids.shape[0]}, {token_ids.shape[1]}, …]"
                )
        return {hook: captured[site] for hook, site in self._sites.items()}

    @contextlib.contextmanager
    def also_reading(self, hooks: Sequence[str]) -> Iterator[None]:
        """Inside the block ``activations`` gives the outputs of ``hooks`` too; HookError for an unknown one."""
        before = self.hooks, self._sites, self._wanted
        sites = {**self._sites, **{hook: resolve_hook(self.module, hook) for hook in hooks}}
        self.hooks, self._sites, self._wanted = tuple(sites), sites, dict.fromkeys(sites.values())
        added = [site for site in self._wanted if site not in before[2]]
        handles = [read_at(self.module, site, partial(self._capture, site)) for site in added]
        try:
            yield
        finally:
            self.hooks, self._sites, self._wanted = before
            for handle in handles:
                handle.remove()

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compiles the repeated blocks by ``torch.compile``, for the one shape of a forward batch.

        The first forward pass waits for it: once for all blocks of a kind. A block with a hook inside stays as it is.
        """
        hooked = {self.module.get_submodule(site.path) for site in self._wanted}
        for block in repeated_blocks(self.module):
            if not hooked & (set(block.modules()) - {block}):
                block.forward = torch.compile(block.forward, dynamic=False, backend=backend)
        self.compiled = True

    def _mask_option(self, attention_mask: Tensor) -> dict[str, Any]:
        """Causal attention never sees padding on the right, so it gets no mask. With one, transformers asks whether
        it is all ones (a synchronisation) and chooses another attention kernel if it is, so that a sample's last
        bits would depend on its neighbours in the batch."""
        return {} if self.is_causal else {"attention_mask": attention_mask.long()}

    def _capture(self, site: Site, tensor: Any) -> None:
        if not isinstance(tensor, Tensor):
            hook = next(hook for hook, own in self._sites.items() if own == site)
            raise HookError(f"hook {hook!r} gives a {type(tensor).__name__}, not a tensor")
        self._captured.setdefault(site, tensor)
        if len(self._captured) == len(self._wanted):
            raise _DeepestHookReached


def load_language_model(
    path: str,
    hooks: Sequence[str],
    *,
    device: torch.device | str = "cpu",
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """The model in folder ``path`` (or of that hub id), without its LM head, on ``device``.

    ``dtype`` ``auto`` is the checkpoint's own on a GPU and float32 on a CPU, where 16-bit arithmetic is slow and
    coarse. Weights come from safetensors alone, never from a pickle. Raises HookError for an unknown hook and
    UntrustedCodeError for a model that needs code of its own, unless that is trusted.
    """
    from transformers import AutoModel

    device = torch.device(device)
    wanted: Any = DTYPES.get(dtype, "auto" if device.type == "cuda" else torch.float32)
    with _code_is_asked_for(path):
        module = AutoModel.from_pretrained(
            path, revision=revision, dtype=wanted, use_safetensors=True, trust_remote_code=trust_remote_code
        )
    module.config.get_text_config().use_cache = False  # keys and values of every block would be kept for nobody
    return LanguageModel(module.to(device), hooks)


def load_tokenizer(
    path: str, *, revision: str | None = None, trust_remote_code: bool = False, choice: TokenizerChoice = "file"
) -> Any:
    """The tokenizer in folder ``path`` (or of that hub id), see ``read_tokenizer``. Raises TokenizerError, and
    UntrustedCodeError as ``load_language_model``."""
    folder = resolve_checkpoint(path, revision=revision, trust_remote_code=trust_remote_code)
    with _code_is_asked_for(path):
        return read_tokenizer(folder, choice, trust_remote_code=trust_remote_code)


def probe_hooks(
    path: str, hooks: Sequence[str], *, revision: str | None = None, trust_remote_code: bool = False
) -> dict[str, int]:
    """Width D of every hook of a model, from its configuration alone where it can be: no weight is read.

    Runs the model on torch's meta device, which computes shapes only; a model that wants to look at numbers on
    the way is loaded instead. Raises HookError for an unknown hook, UntrustedCodeError as ``load_language_model``.
    """
    module = _without_weights(path, revision, trust_remote_code)
    try:
        return LanguageModel(module, hooks).hook_widths()
    except (RuntimeError, NotImplementedError):
        model = load_language_model(path, hooks, revision=revision, trust_remote_code=trust_remote_code)
        return model.hook_widths()


def same_tensor(path: str, one: str, other: str, *, trust_remote_code: bool = False) -> bool:
    """Whether two hooks of a model name one tensor, by its configuration alone. Raises HookError for an unknown hook,
    UntrustedCodeError as ``load_language_model``."""
    module = _without_weights(path, None, trust_remote_code)
    return _behind_block(resolve_hook(module, one)) == _behind_block(resolve_hook(module, other))


def _behind_block(site: Site) -> Site:
    """What a block reads is what the one before it gives."""
    stack, _, number = site.path.rpartition(".")
    if site.side != "input" or not number.isdecimal() or int(number) == 0:
        return site
    return Site(f"{stack}.{int(number) - 1}", "output")


def context_length(path: str, *, revision: str | None = None, trust_remote_code: bool = False) -> int | None:
    """Positions that a model was made for, by its configuration; None where that does not say."""
    config = _configuration(path, revision, trust_remote_code).get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def vocabulary_size(path: str, *, trust_remote_code: bool = False) -> int | None:
    """Token ids that a model has embeddings of, by its configuration; None where that does not say."""
    config = _configuration(path, None, trust_remote_code).get_text_config()
    size = getattr(config, "vocab_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _without_weights(path: str, revision: str | None, trust_remote_code: bool) -> nn.Module:
    from transformers import AutoModel

    config = _configuration(path, revision, trust_remote_code)
    with torch.device("meta"), warnings.catch_warnings(), _code_is_asked_for(path):
        warnings.simplefilter("ignore")
        # A mixture of experts has shapes for bfloat16 alone on this device; widths are those of every dtype.
        module: nn.Module = AutoModel.from_config(config, dtype=torch.bfloat16, trust_remote_code=trust_remote_code)
    return module


def _configuration(path: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    with _code_is_asked_for(path):
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a model is a stack of: the modules of its longest list."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


@contextlib.contextmanager
def _code_is_asked_for(path: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UntrustedCodeError(
            f"{path} cannot be loaded without running Python code that comes with it: read that code, and set "
            "language_model.trust_remote_code to true if you trust it"
        ) from error


def checkpoint_files(path: str, *, revision: str | None = None, trust_remote_code: bool = False) -> list[Path]:
    """The files that decide what the model computes: its configuration and weights, sorted by name, and its own code
    where that is trusted.

    ``path`` is a folder or a hub id, which is downloaded unless the local cache has its newest commit.
    """
    folder = resolve_checkpoint(path, revision=revision, trust_remote_code=trust_remote_code)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not a language model: it lacks config.json or *.safetensors")
    return [folder / "config.json", *weights, *(sorted(folder.glob("*.py")) if trust_remote_code else [])]


def resolve_checkpoint(path: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Path:
    """The local folder of a model or SAE given as a folder or a hub id; FileNotFoundError says what was tried.

    Python code of a hub repository is downloaded only where it is trusted.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or path.startswith("."):
        raise FileNotFoundError(f"no checkpoint at {folder}: the folder does not exist")
    from huggingface_hub import snapshot_download

    wanted = _hub_files(path, revision, trust_remote_code)
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=wanted))
    except Exception as error:
        raise FileNotFoundError(
            f"no checkpoint {path!r}: there is no such folder, and the Hugging Face hub did not give it ({error})"
        ) from error


def _hub_files(repository: str, revision: str | None, code: bool) -> list[str]:
    """Names of the files to download, or patterns of them where the hub cannot be asked: then the local cache has
    what it has."""
    from glob import escape

    from huggingface_hub import HfApi

    try:
        listed = HfApi().model_info(repository, revision=revision, files_metadata=True).siblings or []
    except Exception:  # no network, or no such repository: the download says which
        return [*PATTERNS, *(["*.py"] if code else [])]
    return [escape(name) for name in wanted_from_hub({own.rfilename: own.size or 0 for own in listed}, code=code)]
