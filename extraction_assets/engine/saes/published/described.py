"""What the names of a published SAE say of its hook, layer, width and L0, without any of its files.

Only forms that are known are read; what no name says is None, as a guess would mislead.
"""

from __future__ import annotations

import re

from extraction_assets.engine.saes.published import PublishedSae

KINDS = ("residual", "attention", "MLP", "transcoder", "embedding")
"""What an SAE reads; a transcoder reads a layer's MLP input and gives its output."""

_KINDS = (
    ("embedding", re.compile(r"^embedding/")),
    ("transcoder", re.compile(r"transcoder|(?<![a-z])clt(?![a-z])")),
    ("residual", re.compile(r"resid|(?<![a-z])res(?![a-z])|^l\d+r(_|$)")),
    ("attention", re.compile(r"attn|(?<![a-z])att(?![a-z])|hook_z|^l\d+a(_|$)")),
    ("MLP", re.compile(r"mlp|^l\d+m(_|$)")),
)
_HOOK = re.compile(r"blocks\.\d+\.hook_(?:resid_pre|resid_mid|resid_post|mlp_out|attn_out)(?![a-z])")
_HOOK_Z = re.compile(r"blocks\.(\d+)\.hook_z")
_LAYER = re.compile(r"blocks\.(\d+)\.|(?:^|[/_])layer_?(\d+)(?!\d)|^l(\d+)[ram](?:_|$)")

# A number and k or m; "800m" and "220k" of the texts that an SAE was trained on stand in paths too.
_ROUNDED = (
    re.compile(r"width[_-](\d+)([km])(?![a-z0-9])"),
    re.compile(r"-w-?(\d+)(k)(?![a-z0-9])"),
    re.compile(r"(?<![a-z0-9])v5[_-](\d+)(k)(?![a-z0-9])"),
)
_ROUNDED_IN_SOURCE = re.compile(r"[-_](\d+)([km])(?=$|[-_])")
_POWER = re.compile(r"width-2pow(\d+)")
_EXACT = re.compile(r"hook_(?:resid_(?:pre|mid|post)|mlp_out|attn_out)_(\d{3,})|_ds(\d+)_")
_L0 = re.compile(r"average_l0_(\d+)$")


def hook_kind(sae: PublishedSae) -> str | None:
    """One of ``KINDS``."""
    for name in _names(sae):
        for kind, pattern in _KINDS:
            if pattern.search(name):
                return kind
    return None


def layer(sae: PublishedSae) -> int | None:
    """Number of the layer, from 0; None for an SAE of the embedding."""
    for name in (sae.sae_id, sae.path):
        if found := _LAYER.search(name.lower()):
            return int(next(group for group in found.groups() if group is not None))
    return None


def exact_hook(sae: PublishedSae) -> str | None:
    """The TransformerLens name of the hook, where the id begins with one."""
    if found := _HOOK.match(sae.sae_id):
        return found[0]
    if found := _HOOK_Z.match(sae.sae_id):
        return f"blocks.{found[1]}.attn.hook_z"
    return None


def hook(sae: PublishedSae) -> str | None:
    """``exact_hook``, or else layer and kind, such as ``layer 12, residual``."""
    number, kind = layer(sae), hook_kind(sae)
    words = [*([] if number is None else [f"layer {number}"]), *([] if kind is None else [kind])]
    return exact_hook(sae) or ", ".join(words) or None


def width(sae: PublishedSae) -> int | None:
    """Number of features (F)."""
    names = [name.lower() for name in (sae.sae_id, sae.path, sae.repository, sae.release)]
    for name in names:
        if found := _EXACT.search(name):
            return int(found[1] or found[2])
        if found := _POWER.search(name):
            return 1 << int(found[1])
        for pattern in _ROUNDED:
            if found := pattern.search(name):
                return _unrounded(int(found[1]), found[2])
    found = _ROUNDED_IN_SOURCE.search((sae.neuronpedia or "").partition("/")[2])
    return None if found is None else _unrounded(int(found[1]), found[2])


def short_width(features: int) -> str:
    """As names of SAEs write it: ``16k`` for 16,384; in full where it is no power of 2."""
    if features < 1 << 12 or features.bit_count() > 1:
        return f"{features:,}"
    return f"{features // 1_000_000}m" if features >= 1_000_000 else f"{features // 1000}k"


def mean_l0(sae: PublishedSae) -> float | None:
    """Features that fire on an average token: as the registry says, or the SAE's path."""
    if sae.l0 is not None:
        return sae.l0
    found = _L0.search(sae.path)
    return None if found is None else float(found[1])


def _names(sae: PublishedSae) -> list[str]:
    """Where a kind may stand, the most exact first."""
    source = (sae.neuronpedia or "").partition("/")[2]
    return [name.lower() for name in (sae.sae_id, sae.path, sae.repository.partition("/")[2], source)]


def _unrounded(number: int, unit: str) -> int:
    """The width that is written ``16k``, ``131k`` or ``1m``: a power of 2, else a multiple of 1024 (``80k``)."""
    if unit == "m":
        return number << 20
    for power in range(12, 20):
        if number in ((1 << power) // 1000, (1 << power) // 1024):
            return 1 << power
    return number << 10
