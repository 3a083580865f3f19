"""A Hugging Face model up to the deepest hook: token ids in, hook outputs out."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from extraction_assets.engine.models.computed_buffers import restore_computed_buffers
from extraction_assets.engine.models.hooked import LanguageModel
from extraction_assets.engine.models.hooked import repeated_blocks as repeated_blocks
from extraction_assets.engine.models.hooks import HookError as HookError
from extraction_assets.engine.models.hooks import Site, resolve_hook
from extraction_assets.engine.models.loaded_weights import LoadedWeights, LoadingInfo, is_quantized, without_load_report
from extraction_assets.engine.models.model_folder import INDEX, check_model_folder, reading_model
from extraction_assets.engine.models.small_files import PATTERNS, wanted_from_hub
from extraction_assets.engine.models.stored_weights import chooses_weights, read_stored_weights, refuse_oversized
from extraction_assets.engine.models.tokenizers import TokenizerChoice, read_tokenizer


class UntrustedCodeError(ValueError):
    """A model or tokenizer that needs Python code of its own, which nobody said to trust."""


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    with explain_untrusted_code(str(folder)), without_load_report(stored):
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
    with explain_untrusted_code(str(folder), "tokenizer.json"):
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
    with torch.device("meta"), warnings.catch_warnings(), explain_untrusted_code(path):
        warnings.simplefilter("ignore")
        # A mixture of experts has shapes for bfloat16 alone on this device; widths are those of every dtype.
        module: nn.Module = AutoModel.from_config(config, dtype=torch.bfloat16, trust_remote_code=trust_remote_code)
    return module


def configuration(path: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The configuration in folder ``path`` or of that hub id. Raises UntrustedCodeError as ``load_language_model``."""
    from transformers import AutoConfig

    with explain_untrusted_code(path):
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)


@contextlib.contextmanager
def explain_untrusted_code(path: str, name: str = "config.json") -> Iterator[None]:
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
    """The files that decide what the model computes: its configuration and weights, sorted by name, the index of the
    weights where it chooses among them, and the model's own code where that is trusted.

    ``path`` is a folder or a hub id, which is downloaded unless the local cache has its newest commit.
    """
    folder = resolve_checkpoint(path, revision=revision, trust_remote_code=trust_remote_code)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is not a language model: it lacks config.json or *.safetensors")
    index = [folder / INDEX] if chooses_weights(folder, [file.name for file in weights]) else []
    return [folder / "config.json", *index, *weights, *(sorted(folder.glob("*.py")) if trust_remote_code else [])]


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
