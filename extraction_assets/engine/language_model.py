"""A Hugging Face model up to the deepest hook: token ids in, hook outputs out."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from extraction_assets.engine.hooks import HookError, Site, resolve_hook, text_configuration
from extraction_assets.engine.models.capture import Capture
from extraction_assets.engine.models.computed_buffers import restore_computed_buffers
from extraction_assets.engine.models.loaded_weights import LoadedWeights, LoadingInfo, is_quantized, without_load_report
from extraction_assets.engine.models.model_folder import check_model_folder, reading_model
from extraction_assets.engine.models.parameters_in_use import InUse, parameters_in_use
from extraction_assets.engine.models.small_files import PATTERNS, wanted_from_hub
from extraction_assets.engine.models.stored_weights import read_stored_weights, refuse_oversized
from extraction_assets.engine.models.text_pass import refuse_other_inputs
from extraction_assets.engine.models.tokenizers import TokenizerChoice, read_tokenizer


class UntrustedCodeError(ValueError):
    """A model or tokenizer that needs Python code of its own, which nobody said to trust."""


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


_WATCHED_SAMPLES = 8
"""Samples that are run to the model's end to find what it writes into: at most those of one early batch."""

_FEW_TOKENS = (1, 16, 128)
"""Tokens that are tried to see what a pass uses."""


class LanguageModel:
    """A model on one device with hooks on some of its tensors.

    ``hooks`` are what ``resolve_hook`` takes. Two spellings of one tensor are captured once. Raises HookError.
    """

    def __init__(self, module: nn.Module, hooks: Sequence[str]) -> None:
        self.module = module.eval()
        self._compiled: dict[nn.Module, Any] = {}
        """The compiled forward of each block."""
        self.compiled = False
        """Whether ``compile_blocks`` was called, which can change last bits."""
        self.eager_blocks: list[int] = []
        """Numbers of the blocks that were left as they are for hooks inside: part of what last bits depend on."""
        self._capture = Capture(self.module, self._resolved(hooks))
        self.weights: LoadedWeights | None = None
        """What of the weights is as the files say, of a model that was loaded from files."""

    @property
    def hooks(self) -> tuple[str, ...]:
        return tuple(self._capture.sites)

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

        The first call with a hook also runs a part of the batch twice to the model's end, to find which tensors the
        model writes into after the hook (Falcon adds the attention's output to the MLP's, in place): these are copied
        when they are captured, so that what a hook gives depends on no other hook. Nothing else is copied.
        Raises HookError where a hook never fires, runs more than once, needs other inputs than text, or does not give
        [B, T, D].
        """
        if not self._capture.is_watched:
            self._watch(token_ids, attention_mask)
        return self._shaped(self._capture.run(token_ids, self._mask_option(attention_mask)), token_ids)

    @torch.inference_mode()
    def activations_alone(self, token_ids: Tensor) -> dict[str, Tensor]:
        """What every hook reads of one sample without padding, as a user of transformers calls the model: int64 [n] and
        a mask of ones -> {hook: [1, at least n, D]}. Uncompiled; for comparisons, since last bits differ from those of
        a batch."""
        ids = token_ids[None]
        with self._uncompiled():
            captured = self._capture.run(ids, {"attention_mask": torch.ones_like(ids)})
        return self._shaped(captured, ids, or_longer=True)

    @torch.inference_mode()
    def hook_widths(self) -> dict[str, int]:
        """D of every hook, from a whole forward pass over a few tokens. Raises HookError as ``activations``."""
        few = torch.zeros(2, 3, dtype=torch.int64, device=self.device)  # two sizes, or a transposed output would do
        # Without a mask, for nothing is padding: a model given one looks at its numbers, which a meta device has not.
        with self._uncompiled():
            captured = self._capture.run_whole(few, {})
        return {hook: output.shape[-1] for hook, output in self._shaped(captured, few).items()}

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

    def num_runs(self, hook: str) -> int | None:
        """How often the module of a hook runs in a forward pass; None before the first one."""
        return self._capture.num_runs(resolve_hook(self.module, hook).path)

    @torch.inference_mode()
    def weights_in_use(self) -> InUse:
        """What a forward pass up to the hooks uses of the module, from one over a few tokens."""
        with self._uncompiled():
            return parameters_in_use(self.module, self._run_few_tokens)

    def _run_few_tokens(self) -> None:
        """A pass up to the hooks, whose outputs are not looked at. Raises what the model raises for any few tokens."""
        for length in _FEW_TOKENS:
            ids = torch.zeros(1, length, dtype=torch.int64, device=self.device)
            try:
                with contextlib.suppress(HookError):  # for the first batch to raise
                    self._capture.run(ids, self._mask_option(torch.ones_like(ids)))
                return
            except Exception:  # of any library and any kind; attention in windows may need more tokens
                if length == _FEW_TOKENS[-1]:
                    raise

    def find_readable(self, hooks: Sequence[str]) -> list[str]:
        """Those of ``hooks`` that exist and can be read."""
        with contextlib.suppress(HookError), self.also_reading(hooks):
            self.hook_widths()
            return list(hooks)
        found = []
        for hook in hooks:
            with contextlib.suppress(HookError), self.also_reading([hook]):
                self.hook_widths()
                found.append(hook)
        return found

    @contextlib.contextmanager
    def also_reading(self, hooks: Sequence[str]) -> Iterator[None]:
        """Inside the block ``activations`` gives the outputs of ``hooks`` too; HookError for an unknown one."""
        before = self._capture.sites
        self._capture.read({**before, **self._resolved(hooks)})
        try:
            yield
        finally:
            self._capture.read(before)

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compiles the repeated blocks by ``torch.compile``, for the one shape of a forward batch.

        The first forward pass waits for it: once for all blocks of a kind. A block with a hook inside stays as it is.
        """
        hooked = {self.module.get_submodule(site.path) for site in self._capture.sites.values()}
        for number, block in enumerate(repeated_blocks(self.module)):
            if hooked & (set(block.modules()) - {block}):
                self.eager_blocks.append(number)
            else:
                self._compiled[block] = torch.compile(block.forward, dynamic=False, backend=backend)
                block.forward = self._compiled[block]
        self.compiled = True

    def _resolved(self, hooks: Sequence[str]) -> dict[str, Site]:
        sites = {hook: resolve_hook(self.module, hook) for hook in hooks}
        for hook, site in sites.items():
            refuse_other_inputs(self.module, hook, site)
        return sites

    def _watch(self, token_ids: Tensor, attention_mask: Tensor) -> None:
        """Of a large batch the first samples do, and the last one, which may be padding alone."""
        rows = torch.tensor([*range(min(_WATCHED_SAMPLES, len(token_ids)) - 1), len(token_ids) - 1])
        rows = rows.to(token_ids.device)
        with self._uncompiled():
            self._capture.watch(token_ids[rows], self._mask_option(attention_mask[rows]))

    @contextlib.contextmanager
    def _uncompiled(self) -> Iterator[None]:
        """Runs the blocks as they were before ``compile_blocks``."""
        for block in self._compiled:
            del block.forward
        try:
            yield
        finally:
            for block, compiled in self._compiled.items():
                block.forward = compiled

    def _mask_option(self, attention_mask: Tensor) -> dict[str, Any]:
        """Causal attention never sees padding on the right, so it gets no mask. With one, transformers asks whether
        it is all ones (a synchronisation) and chooses another attention kernel if it is, so that a sample's last
        bits would depend on its neighbours in the batch."""
        return {} if self.is_causal else {"attention_mask": attention_mask.long()}

    def _shaped(
        self, captured: Mapping[Site, Tensor], token_ids: Tensor, *, or_longer: bool = False
    ) -> dict[str, Tensor]:
        """{hook: [B, T, D]} of a pass over [B, T], or with more positions where a model may fill samples up."""
        samples, positions = token_ids.shape
        for hook, site in self._capture.sites.items():
            if site not in captured:
                raise HookError(f"hook {hook!r} is part of the model but did not run in its forward pass")
            output = captured[site]
            fits = output.dim() == 3 and output.shape[0] == samples
            if not fits or not (output.shape[1] == positions or (or_longer and output.shape[1] > positions)):
                raise HookError(
                    f"hook {hook!r} gives a tensor of shape {tuple(output.shape)}, "
                    f"expected [samples, positions, width] = [{samples}, {positions}, …]"
                )
        return {hook: captured[site] for hook, site in self._capture.sites.items()}


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
    coarse. Weights come from safetensors alone, never from a pickle. Raises HookError for an unknown hook,
    UntrustedCodeError for a model that needs code of its own, unless that is trusted, and CheckpointError where a file
    is damaged or the weights that the hooks depend on are not those of the files (``LoadedWeights``).
    """
    from transformers import AutoModel

    device = torch.device(device)
    wanted: Any = DTYPES.get(dtype, "auto" if device.type == "cuda" else torch.float32)
    folder = resolve_checkpoint(path, revision=revision, trust_remote_code=trust_remote_code)
    config = configuration(str(folder), None, trust_remote_code)
    stored = read_stored_weights(folder, config)
    with _code_is_asked_for(str(folder)), without_load_report(stored):
        module, told = AutoModel.from_pretrained(
            str(folder),
            dtype=wanted,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        restore_computed_buffers(module)
    module.config.get_text_config().use_cache = False  # keys and values of every block would be kept for nobody
    model = LanguageModel(module.to(device), hooks)
    model.weights = LoadedWeights(module, stored, LoadingInfo.of(told), is_quantized=is_quantized(config))
    if hooks:
        model.weights.refuse_problems(model.weights_in_use(), model.hooks)
    return model


def load_tokenizer(
    path: str, *, revision: str | None = None, trust_remote_code: bool = False, choice: TokenizerChoice = "file"
) -> Any:
    """The tokenizer in folder ``path`` (or of that hub id), see ``read_tokenizer``. Raises TokenizerError, and
    UntrustedCodeError as ``load_language_model``."""
    folder = resolve_checkpoint(path, revision=revision, trust_remote_code=trust_remote_code)
    with _code_is_asked_for(str(folder), "tokenizer.json"):
        return read_tokenizer(folder, choice, trust_remote_code=trust_remote_code)


def probe_hooks(
    path: str, hooks: Sequence[str], *, revision: str | None = None, trust_remote_code: bool = False
) -> dict[str, int]:
    """Width D of every hook of a model, from its configuration alone where it can be: no weight is read.

    Runs the model on torch's meta device, which computes shapes only; a model that wants to look at numbers on
    the way is loaded instead. Raises HookError for an unknown hook, UntrustedCodeError as ``load_language_model``.
    """
    module = _without_weights(path, revision, trust_remote_code)
    folder = Path(path).expanduser()
    if any(folder.glob("*.safetensors")):
        refuse_oversized(module, read_stored_weights(folder, module.config))
    try:
        return LanguageModel(module, hooks).hook_widths()
    except (RuntimeError, NotImplementedError):
        model = load_language_model(path, hooks, revision=revision, trust_remote_code=trust_remote_code)
        return model.hook_widths()


def same_tensor(path: str, one: str, other: str, *, trust_remote_code: bool = False) -> bool:
    """Whether two hooks of a model name one tensor, by its configuration alone. Raises HookError for an unknown hook,
    UntrustedCodeError as ``load_language_model``."""
    return name_same_tensor(_without_weights(path, None, trust_remote_code), one, other)


def name_same_tensor(module: nn.Module, one: str, other: str) -> bool:
    """Whether two hooks of a module name one tensor. Raises HookError for an unknown hook."""
    return _behind_block(resolve_hook(module, one)) == _behind_block(resolve_hook(module, other))


def _behind_block(site: Site) -> Site:
    """What a block reads is what the one before it gives."""
    stack, _, number = site.path.rpartition(".")
    run = site.run or 0  # of a module that runs once, the first run is the only one
    if site.side != "input" or not number.isdecimal() or int(number) == 0 or run:
        return site._replace(run=run)
    return Site(f"{stack}.{int(number) - 1}", "output", run)


def context_length(path: str, *, revision: str | None = None, trust_remote_code: bool = False) -> int | None:
    """Positions that a model was made for, by its configuration; None where that does not say."""
    config = configuration(path, revision, trust_remote_code).get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def vocabulary_size(path: str, *, trust_remote_code: bool = False) -> int | None:
    """Token ids that a model has embeddings of, by its configuration; None where that does not say."""
    config = configuration(path, None, trust_remote_code).get_text_config()
    size = getattr(config, "vocab_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _without_weights(path: str, revision: str | None, trust_remote_code: bool) -> nn.Module:
    from transformers import AutoModel

    config = configuration(path, revision, trust_remote_code)
    with torch.device("meta"), warnings.catch_warnings(), _code_is_asked_for(path):
        warnings.simplefilter("ignore")
        # A mixture of experts has shapes for bfloat16 alone on this device; widths are those of every dtype.
        module: nn.Module = AutoModel.from_config(config, dtype=torch.bfloat16, trust_remote_code=trust_remote_code)
    return module


def configuration(path: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The configuration in folder ``path`` or of that hub id. Raises UntrustedCodeError as ``load_language_model``."""
    from transformers import AutoConfig

    with _code_is_asked_for(path):
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a model is a stack of: the modules of its longest list."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


@contextlib.contextmanager
def _code_is_asked_for(path: str, name: str = "config.json") -> Iterator[None]:
    """What transformers raises while it reads ``path``, in one sentence: untrusted code, or a damaged file of it, by
    default file ``name``."""
    folder = Path(path).expanduser()
    try:
        with reading_model(folder, name) if folder.is_dir() else contextlib.nullcontext():
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
        check_model_folder(folder)
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
