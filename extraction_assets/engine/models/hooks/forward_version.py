"""Hooks whose stored outputs of earlier versions may be wrong, so that they are not taken for today's."""

import json
import re
from pathlib import Path

_WRONG = {
    "falcon": r"mlp",
    "ctrl": r"(^|\.)w\b",
    "flaubert": r"layer_norm",
    "albert": r"albert_layer",
    "hrm_text": r"",
    "ibert": r"act",
    "nanochat": r"norm",
    "openai-gpt": r"act",
    "phi": r"resid_dropout",
    "layoutlm": r"_position_embeddings",
    "paligemma": r"",
    "colpali": r"",
    "convbert": r"",
    "fnet": r"",
    "mobilebert": r"",
    "nystromformer": r"",
    "yoso": r"",
}
"""By model type, what is found in such hooks: tensors that the model writes into later (Falcon, CTRL, FlauBERT),
modules that run more than once, of which the first run was taken, and models in which padding has a part."""


def forward_version(folder: Path, hook: str) -> int:
    """Version of the meaning of ``hook`` in the model in ``folder``: 1, or 2 where the meaning has changed."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return 1  # not a folder of a model, which is reported elsewhere
    if not isinstance(config, dict):
        return 1
    pattern = _WRONG.get(str(config.get("model_type")))
    if pattern is None and config.get("is_encoder_decoder") is True:
        pattern = r"decoder"  # it read the encoder's text, shifted by one
    return 2 if pattern is not None and re.search(pattern, hook) else 1
