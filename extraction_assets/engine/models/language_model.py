"""A Hugging Face model up to the deepest hook: token ids in, hook outputs out."""

import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint, explain_untrusted_code
from extraction_assets.engine.models.files.remembered import ByConfiguration
from extraction_assets.engine.models.files.stored_weights import read_stored_weights, refuse_oversized
from extraction_assets.engine.models.forward.capped_attention import keep_softcap
from extraction_assets.engine.models.forward.hooked import LanguageModel
from extraction_assets.engine.models.forward.hooked import repeated_blocks as repeated_blocks
from extraction_assets.engine.models.hooks.hook import HookError as HookError
from extraction_assets.engine.models.hooks.hook import Site, resolve_hook
from extraction_assets.engine.models.weights.computed_buffers import restore_computed_buffers
from extraction_assets.engine.models.weights.loaded_weights import LoadedWeights, LoadingInfo, without_load_report
from extraction_assets.engine.models.weights.quantization import is_quantized, unpack_to, unpacking_options

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_language_model(
    checkpoint: LocalCheckpoint, hooks: Sequence[str], *, device: torch.device | str = "cpu", dtype: str = "auto"
) -> LanguageModel:
    """The model of a checkpoint up to its deepest hook, without its LM head, on ``device``.

    ``dtype`` ``auto`` is the checkpoint's on a GPU and float32 on a CPU, where 16-bit arithmetic is slow and
    coarse. Weights come from safetensors alone, never from a pickle. Raises HookError for an unknown hook,
    UntrustedCodeError for a model that needs Python code that is not trusted, and CheckpointError if a file
    is damaged or the weights that the hooks depend on are not those of the files (``LoadedWeights``).
    """
    from transformers import AutoModel

    device = torch.device(device)
    wanted: Any = DTYPES.get(dtype, "auto" if device.type == "cuda" else torch.float32)
    config = configuration(checkpoint)
    stored = read_stored_weights(checkpoint.folder, config)
    with explain_untrusted_code(checkpoint.folder), without_load_report(stored):
        module, loading_info = AutoModel.from_pretrained(
            str(checkpoint.folder),
            dtype=wanted,
            use_safetensors=True,
            trust_remote_code=checkpoint.trust_remote_code,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **unpacking_options(config),
        )
        restore_computed_buffers(module)
    unpack_to(module, config, wanted)
    keep_softcap(module)
    module.config.get_text_config().use_cache = False  # nothing reads the keys and values of a block again
    model = LanguageModel(module.to(device), hooks)
    info = LoadingInfo.of(loading_info)
    if unpacking_options(config):
        info = info.with_shapes_of(module, _without_weights(checkpoint))
    model.weights = LoadedWeights(module, stored, info, is_quantized=is_quantized(config))
    if hooks:
        model.weights.refuse_problems(model.weights_in_use(), model.hooks)
    return model


def probe_hooks(checkpoint: LocalCheckpoint, hooks: Sequence[str]) -> dict[str, int]:
    """Width D of every hook of a model, from its configuration alone where it can be: no weight is read.

    Runs the model on torch's meta device, which computes shapes only; a model that wants to look at numbers on
    the way is loaded instead. Raises HookError for an unknown hook, UntrustedCodeError as ``load_language_model``.
    """
    build = cache(partial(_without_weights, checkpoint))
    config = configuration(checkpoint)
    if any(checkpoint.folder.glob("*.safetensors")):
        described = _SIZES.of(checkpoint, lambda: sum(parameter.numel() for parameter in build().parameters()))
        refuse_oversized(described, read_stored_weights(checkpoint.folder, config))
    try:
        return dict(_WIDTHS.of(checkpoint, lambda: LanguageModel(build(), hooks).hook_widths(), *hooks))
    except (RuntimeError, NotImplementedError):
        return load_language_model(checkpoint, hooks).hook_widths()


_SIZES = ByConfiguration[int]()
"""Numbers that a model's parameters hold."""
_WIDTHS = ByConfiguration[dict[str, int]]()
"""D of every hook."""


def same_tensor(checkpoint: LocalCheckpoint, one: str, other: str) -> bool:
    """Whether two hooks of a model name one tensor, by its configuration alone. Raises HookError for an unknown hook,
    UntrustedCodeError as ``load_language_model``."""
    return name_same_tensor(_without_weights(checkpoint), one, other)


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


def context_length(checkpoint: LocalCheckpoint) -> int | None:
    """Positions that a model was made for, by its configuration; None if that does not say."""
    return configured_positions(configuration(checkpoint))


def configured_positions(config: Any) -> int | None:
    """Positions that a model of a configuration was made for; None if it does not say."""
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def vocabulary_size(checkpoint: LocalCheckpoint) -> int | None:
    """Token ids that a model has embeddings of, by its configuration; None if that does not say."""
    config = configuration(checkpoint).get_text_config()
    size = getattr(config, "vocab_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _without_weights(checkpoint: LocalCheckpoint) -> nn.Module:
    from transformers import AutoModel

    config, trusted = configuration(checkpoint), checkpoint.trust_remote_code
    with torch.device("meta"), warnings.catch_warnings(), explain_untrusted_code(checkpoint.folder):
        warnings.simplefilter("ignore")
        # A mixture of experts has shapes for bfloat16 alone on this device; widths are those of every dtype.
        module: nn.Module = AutoModel.from_config(config, dtype=torch.bfloat16, trust_remote_code=trusted)
    return module


def configuration(checkpoint: LocalCheckpoint) -> Any:
    """The model's configuration, as transformers reads it. Raises UntrustedCodeError as ``load_language_model``."""
    from transformers import AutoConfig

    with explain_untrusted_code(checkpoint.folder):
        return AutoConfig.from_pretrained(str(checkpoint.folder), trust_remote_code=checkpoint.trust_remote_code)
