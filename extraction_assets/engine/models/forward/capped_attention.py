"""Attention whose scores are capped (Gemma 2)."""

from typing import Any

from extraction_assets.engine.models.hooks.sites import text_configuration


def keep_softcap(module: Any) -> None:
    """Has a model of transformers with a cap on its attention's scores compute attention without torch's fused kernel.

    That kernel has no cap. transformers 5.22 and later chooses eager attention for such a model itself; earlier
    versions choose the kernel and leave the cap out in silence.
    """
    capped = getattr(text_configuration(module), "attn_logit_softcapping", None) is not None
    if capped and getattr(module.config, "_attn_implementation", None) == "sdpa":
        module.set_attn_implementation("eager")
