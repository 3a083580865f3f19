"""Whether a hook can be what a published SAE reads, by its names alone."""

from __future__ import annotations

import re

from extraction_assets.engine.saes.published import PublishedSae
from extraction_assets.engine.saes.published.described import exact_hook, hook_kind, layer

_LAYER = re.compile(r"\.(\d+)(?=[.\[]|$)")
_KINDS = (
    ("embedding", re.compile(r"hook_(pos_)?embed|embed_tokens|(^|\.)wte")),
    ("attention", re.compile(r"attn|hook_z")),
    ("MLP", re.compile(r"mlp|feed_?forward|ln2")),
    ("residual", re.compile(r"hook_resid|\.\d+(\[\d+\])?(\.input|\.output)?$")),
)
_MLP = ("MLP", "transcoder")
"""Kinds that hooks around a layer's MLP have in common."""


def contradicts(sae: PublishedSae, hook: str) -> bool:
    """Whether ``hook``, a TransformerLens name or a dotted path, is at another layer than ``sae`` or of another kind.

    False where names do not say it. The residual stream behind a layer is that before the next one.
    """
    if hook == exact_hook(sae):
        return False
    kind, found = hook_kind(sae), next((kind for kind, pattern in _KINDS if pattern.search(hook)), None)
    if found and kind and found != kind and not (found in _MLP and kind in _MLP):
        return True
    if "resid_mid" in hook:
        return kind == "residual" and "mid" not in f"{sae.sae_id}/{sae.path}"
    number = _LAYER.search(hook)
    return number is not None and layer(sae) is not None and layer(sae) not in _layers(sae, hook, int(number[1]))


def _layers(sae: PublishedSae, hook: str, number: int) -> tuple[int, ...]:
    """The layers that ``sae`` may be called after if it reads ``hook`` of layer ``number``."""
    if hook_kind(sae) != "residual":
        return (number,)
    if "resid_pre" in hook or hook.endswith(".input"):
        return (number - 1, number)
    return (number + 1,) if "resid_pre" in (exact_hook(sae) or "") else (number,)
