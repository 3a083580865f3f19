"""How many positions a model takes if its configuration does not say: found by running the model."""

import contextlib
import copy
import warnings
from typing import Any

import torch
from torch import nn

from extraction_assets.engine.models.files.local_checkpoint import LocalCheckpoint
from extraction_assets.engine.models.files.remembered import ByConfiguration
from extraction_assets.engine.models.hooks.sites import text_configuration
from extraction_assets.engine.models.hooks.text_pass import attention_window, run_text

_OFFSET = 8
"""Rows of a table of positions that a model may have beside those of its configuration."""
_FEW = 4


def fewer_positions(checkpoint: LocalCheckpoint, positions: int) -> int | None:
    """The positions that a model of text takes, if these are fewer than ``positions``; None if it takes that many, or
    if that is not known.

    RoBERTa's 514 embeddings of positions are for 512 tokens, since the first ones belong to padding. So one sample of
    tokens that are not padding runs, on the CPU, through the model of that configuration cut to one block, with
    random weights. Models with rotary positions alone are not run: they compute at any length, and their
    configuration's limit is that of their training.
    """
    from extraction_assets.engine.models.language_model import configuration

    config = configuration(checkpoint)
    return _FOUND.of(checkpoint, lambda: _fewer(config, positions, checkpoint.trust_remote_code), positions)


_FOUND = ByConfiguration[int | None]()


def _fewer(config: Any, positions: int, trusted: bool) -> int | None:
    from extraction_assets.engine.models.language_model import configured_positions

    limit = configured_positions(config)
    config = _one_block(config)
    if limit is not None and not _has_table(_build(config, "meta", trusted), limit):
        return None
    model = _build(config, "cpu", trusted)
    few = min(_FEW, positions)
    if model is None or not _takes(model, few) or _takes(model, positions):
        return None
    while positions - few > 1:
        middle = (few + positions) // 2
        few, positions = (middle, positions) if _takes(model, middle) else (few, middle)
    return few


def usual_positions(checkpoint: LocalCheckpoint, usual: int) -> int:
    """``usual`` positions, or as many as a local model takes where these are fewer; of one that fills samples up to its
    attention window a multiple of that, more than ``usual`` if need be.

    Raises UntrustedCodeError for a model that comes with code which is not trusted.
    """
    from extraction_assets.engine.models.language_model import configuration, context_length

    context = context_length(checkpoint)
    length = min(usual, context or usual)
    length = fewer_positions(checkpoint, length) or length
    window = attention_window(configuration(checkpoint))
    if window is None or length % window == 0:
        return length
    longer = -(-length // window) * window
    if longer <= (context or longer) and fewer_positions(checkpoint, longer) is None:
        return longer
    return length // window * window or length


def _one_block(config: Any) -> Any:
    config = copy.deepcopy(config)
    for part in {id(one): one for one in (config, config.get_text_config())}.values():
        for name in ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers", "num_decoder_layers"):
            if isinstance(getattr(part, name, None), int):
                with contextlib.suppress(NotImplementedError, ValueError):  # a configuration that counts otherwise
                    setattr(part, name, 1)
        if isinstance(getattr(part, "attention_window", None), (list, tuple)):  # one for each block
            part.attention_window = [max(part.attention_window)]
    return config


def _build(config: Any, device: str, trust_remote_code: bool) -> nn.Module | None:
    """A model of random weights; None if such a configuration makes none."""
    from transformers import AutoModel

    # Its random weights are drawn from a copy of the generator: who asks first changes no other random number.
    with torch.device(device), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            module: nn.Module = AutoModel.from_config(config, trust_remote_code=trust_remote_code)
        except Exception:  # of anything that a model's constructor runs; the early batch runs the real one
            return None
    return module.eval()


def _has_table(model: nn.Module | None, positions: int) -> bool:
    """Whether some table has a row for each position: an embedding, or a parameter or buffer that no linear layer or
    norm has (whose widths may be the same number)."""
    if model is None:
        return False
    return any(positions <= size <= positions + _OFFSET for module in model.modules() for size in _rows(module))


def _rows(module: nn.Module) -> list[int]:
    if isinstance(module, nn.Embedding):
        return [module.weight.shape[0]]
    if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
        return []
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return [size for tensor in tensors if tensor.dim() > 1 for size in tensor.shape]


@torch.inference_mode()
def _takes(model: nn.Module, positions: int) -> bool:
    config: Any = text_configuration(model)
    special = {str(value) for name, value in config.to_dict().items() if name.endswith("token_id")}
    token = next(number for number in range(len(special) + 1) if str(number) not in special)
    ids = torch.full((1, positions), token)
    try:
        run_text(model, ids, attention_mask=torch.ones_like(ids))
    except Exception:  # an index out of bounds, or shapes that do not fit
        return False
    return True
