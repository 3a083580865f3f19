"""Every TransformerLens name gives what TransformerLens itself holds there, on the same weights of every family.

TransformerLens comes with sae-lens, which the tests alone need. ``TransformerBridge`` names the modules of
transformers' own classes; ``HookedTransformer``, which SAELens trains on, computes everything by itself.
"""

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.families import D_MODEL, FAMILIES, NUM_BLOCKS, VOCABULARY, WITH_IMAGES, save_model
from extraction_assets_tests.engine.models.hooks.test_hooks import names_of

DECODERS = [name for name, layout in FAMILIES.items() if layout.kind != "post-norm" and name not in WITH_IMAGES]
LAYER_NORM = [name for name in DECODERS if name.startswith(("gpt", "phi")) and name not in ("gpt_oss", "phi3")]
token_ids = torch.randint(3, VOCABULARY - 2, (2, 12), generator=torch.Generator().manual_seed(0))


class Both(NamedTuple):
    """One batch through our hooks and through TransformerLens."""

    ours: dict[str, Tensor]
    theirs: dict[str, Tensor]
    """By TransformerLens's name; heads side by side."""
    folder: Path


def eager(config: Any) -> Any:
    """With the head, and attention as TransformerLens computes it."""
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def flat(cache: Any) -> dict[str, Tensor]:
    return {name: value.flatten(2) if value.dim() == 4 else value for name, value in cache.items()}


def differing(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> list[str]:
    """Names that are not the same tensor in both."""
    return [name for name, other in theirs.items() if not torch.allclose(ours[name], other, tolerance, tolerance)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Both]:
    sources = pytest.importorskip("transformer_lens.model_bridge.sources")
    folder = tmp_path_factory.mktemp("lens")

    @cache
    def make(family: str) -> Both:
        model = save_model(eager, folder / family, family)
        names = names_of(model)
        outputs = load_language_model(local(folder / family), names).activations(
            token_ids, torch.ones_like(token_ids).bool()
        )
        ours = {name: output.clone() for name, output in outputs.items()}
        bridge = sources.build_bridge_from_module(model, type(model).__name__, hf_config=model.config)
        bridge.set_use_hook_mlp_in(True)
        with torch.inference_mode():
            _, cached = bridge.run_with_cache(token_ids)
        shared = {name: cached[name] for name in names if name in cached}
        return Both(ours, flat(shared), folder / family)

    return make


@pytest.mark.parametrize("family", DECODERS)
def test_a_name_is_the_tensor_that_transformer_lens_has_there(family: str, both: Callable[[str], Both]) -> None:
    ours, theirs, _ = both(family)
    of_layer_norms = {name for name in theirs if family in LAYER_NORM and name.endswith("hook_normalized")}
    assert set(differing(ours, theirs, 1e-5)) == of_layer_norms


@pytest.mark.parametrize("family", DECODERS)
def test_transformer_lens_has_every_name(family: str, both: Callable[[str], Both]) -> None:
    ours, theirs, _ = both(family)
    phis = {f"blocks.{block}.{name}" for block in range(NUM_BLOCKS) for name in ("hook_mlp_in", "ln2.hook_normalized")}
    assert ours.keys() - theirs.keys() == (phis if family == "phi" else set())


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_of_a_layer_norm_theirs_lacks_gain_and_bias_since_version_3(family: str, both: Callable[[str], Both]) -> None:
    ours, theirs, folder = both(family)
    path = {"gpt2": "h.1.ln_1", "gpt_neox": "layers.1.input_layernorm"}[family]
    norm: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).requires_grad_(False).get_submodule(path)
    name = "blocks.1.ln1.hook_normalized"
    torch.testing.assert_close(ours[name], theirs[name] * norm.weight + norm.bias, rtol=1e-5, atol=1e-5)


# HookedTransformer


def hooked_transformer(folder: Path, family: str) -> Any:
    """The model of a folder in TransformerLens's own class, its weights neither folded nor centered, as by
    ``from_pretrained_no_processing``."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    config = HookedTransformerConfig(**_SIZES, **_LENS[family], device="cpu", use_hook_mlp_in=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the class is deprecated
        made = HookedTransformer(config)
    convert = getattr(weight_conversions, f"convert_{family.replace('gemma2', 'gemma')}_weights")
    weights = convert(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).requires_grad_(False), made.cfg)
    made.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return made


_SIZES: dict[str, Any] = {"n_layers": NUM_BLOCKS, "d_model": D_MODEL, "n_heads": 4, "n_ctx": 32, "d_vocab": VOCABULARY}
_RMS: dict[str, Any] = {
    "d_head": 6,
    "d_mlp": 40,
    "n_key_value_heads": 2,
    "normalization_type": "RMS",
    "positional_embedding_type": "rotary",
    "rotary_dim": 6,
    "gated_mlp": True,
    "final_rms": True,
    "eps": 1e-6,
}
_LENS: dict[str, dict[str, Any]] = {
    "gpt2": {"d_head": 4, "d_mlp": 64, "act_fn": "gelu_new", "normalization_type": "LN", "eps": 1e-5},
    "llama": {**_RMS, "act_fn": "silu"},
    "gemma": {**_RMS, "act_fn": "gelu_pytorch_tanh"},
    "gemma2": {
        **_RMS,
        "act_fn": "gelu_pytorch_tanh",
        "use_normalization_before_and_after": True,
        "attn_scores_soft_cap": 0.5,
        "use_local_attn": True,
        "window_size": 4,
        "attn_types": ["local", "global", "local"],
    },
}


@pytest.mark.parametrize("family", _LENS)
def test_a_name_is_what_hooked_transformer_computes_there(family: str, both: Callable[[str], Both]) -> None:
    ours, _, folder = both(family)
    with torch.inference_mode():
        _, cached = hooked_transformer(folder, family).run_with_cache(token_ids)
    theirs = flat({name: cached[name] for name in ours if name in cached})
    theirs = {name: value for name, value in theirs.items() if "mlp.hook" not in name}  # other names there
    of_layer_norms = {name for name in theirs if family == "gpt2" and name.endswith("hook_normalized")}
    assert set(differing(ours, theirs, 1e-4)) == of_layer_norms
    assert {name.split(".", 2)[-1] for name in ours.keys() - theirs.keys()} == {"mlp.hook_in", "mlp.hook_out"}
