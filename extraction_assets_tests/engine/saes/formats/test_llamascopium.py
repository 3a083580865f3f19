"""Llamascopium's own form and Llama Scope R1 Distill's, beside OpenMOSS's formula in float64 and SAELens's loader."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from extraction_assets.engine.saes.formats import CheckpointError, SAEWeights, read_checkpoint
from extraction_assets.engine.saes.published import PublishedSae, published_sae
from extraction_assets.engine.saes.sae import SAE, matmul_precision
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets_tests import tiny
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    TOKENS,
    K,
    assert_same_sae,
    random,
    read_by_name,
    read_by_sae_lens,
)
from extraction_assets_tests.engine.saes.formats.published_layouts_b import (
    BF16,
    llamascopium_parameters,
    write_llama_scope_r1_distill,
    write_llamascopium,
)

R1 = ["l0r_800m_slimpajama", "l15r_400m_slimpajama_400m_openr1_math", "l31r_800m_openr1_math"]
TRANSCODER = {"hook_point_in": "blocks.14.ln2.hook_normalized", "hook_point_out": "blocks.14.hook_mlp_out"}


def activation(name: str, hidden: Tensor, threshold: Tensor) -> Tensor:
    """``SparseDictionary.activation_function_factory``."""
    if name == "jumprelu":
        return hidden * (hidden > threshold)
    positive = hidden.clamp(min=0)
    return positive.where(positive >= positive.topk(K).values[:, -1:], 0) if name == "topk" else positive


def of_llamascopium(
    x: Tensor, norms: tuple[float, float] = (1.25, 5.0), dtype: torch.dtype = torch.float32, **config: Any
) -> tuple[Tensor, Tensor]:
    """Features and reconstruction in float64: ``normalize_activations``, ``encode``, ``decode`` and
    ``denormalize_activations`` of llamascopium/models."""
    p = {name: tensor.double() for name, tensor in llamascopium_parameters(dtype).items()}
    threshold = p["activation_function.log_jumprelu_threshold"].exp()
    s_in, s_out = (math.sqrt(D_IN) / norm for norm in norms)
    norm_activation = config.get("norm_activation", "dataset-wise")
    if norm_activation == "token-wise":
        s_in = s_out = math.sqrt(D_IN) / x.double().norm(dim=-1, keepdim=True)  # type: ignore[assignment]
    elif norm_activation == "inference":
        s_in = s_out = 1.0
    hidden = x.double() * s_in @ p["W_E"] + p["b_E"]
    norm = p["W_D"].norm(dim=1) if config.get("sparsity_include_decoder_norm", True) else 1.0
    features = activation(config.get("act_fn", "jumprelu"), hidden * norm, threshold) / norm
    bias = p["b_D"] if config.get("use_decoder_bias", True) else 0.0
    return features, (features @ p["W_D"] + bias) / s_out


def ours(weights: SAEWeights, x: Tensor) -> tuple[Tensor, Tensor]:
    sae = SAE(weights)
    with matmul_precision("highest"):
        sparse = SparseFeatures(*sae.encode_sparse(x)[:3], 4, TOKENS // 4, sae.latent_dim)
        return sae.encode(x), sae.decode(sparse, x.view(4, TOKENS // 4, -1)).view(TOKENS, -1)


@pytest.mark.parametrize("act_fn", ["relu", "jumprelu", "topk"])
@pytest.mark.parametrize("norm_activation", ["dataset-wise", "token-wise", "inference"])
@pytest.mark.parametrize("sparsity_include_decoder_norm", [True, False])
def test_llamascopiums_own_form_is_its_published_formula(
    act_fn: str, norm_activation: str, sparsity_include_decoder_norm: bool, tmp_path: Path
) -> None:
    options = {
        "act_fn": act_fn,
        "norm_activation": norm_activation,
        "sparsity_include_decoder_norm": sparsity_include_decoder_norm,
    }
    write_llamascopium(tmp_path, norms=(1.25, 1.25), **options)  # type: ignore[arg-type]
    x = random(TOKENS, D_IN, seed=0) * 2
    features, reconstruction = of_llamascopium(x, (1.25, 1.25), **options)
    encoded, decoded = ours(read_checkpoint(tmp_path), x)
    assert 0.05 < (features > 0).double().mean() < 0.7
    torch.testing.assert_close(encoded.double(), features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded.double(), reconstruction, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("act_fn", ["relu", "jumprelu", "topk"])
def test_a_transcoder_is_normalised_on_both_sides(act_fn: str, tmp_path: Path) -> None:
    write_llamascopium(tmp_path, act_fn=act_fn, **TRANSCODER)
    x = random(TOKENS, D_IN, seed=0) * 2
    features, reconstruction = of_llamascopium(x, act_fn=act_fn)
    weights = read_checkpoint(tmp_path)
    encoded, decoded = ours(weights, x)
    torch.testing.assert_close(encoded.double(), features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded.double(), reconstruction, rtol=1e-5, atol=1e-5)
    assert (weights.record.hook, weights.record.hook_out) == tuple(TRANSCODER.values())


def test_a_decoder_without_bias_and_weights_in_bfloat16(tmp_path: Path) -> None:
    write_llamascopium(tmp_path, norms=(1.25, 1.25), dtype=BF16, use_decoder_bias=False)
    x = random(TOKENS, D_IN, seed=0) * 2
    features, reconstruction = of_llamascopium(x, (1.25, 1.25), BF16, use_decoder_bias=False)
    encoded, decoded = ours(read_checkpoint(tmp_path), x)
    torch.testing.assert_close(encoded.double(), features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded.double(), reconstruction, rtol=1e-5, atol=1e-5)


def test_unit_decoder_norm_moves_the_norms_into_the_features(tmp_path: Path) -> None:
    write_llamascopium(tmp_path, norms=(1.25, 1.25), act_fn="topk")
    x = random(TOKENS, D_IN, seed=0) * 2
    features, reconstruction = of_llamascopium(x, (1.25, 1.25), act_fn="topk")
    encoded, decoded = ours(read_checkpoint(tmp_path, fold_decoder_norm=True), x)
    norms = llamascopium_parameters()["W_D"].double().norm(dim=1) / (math.sqrt(D_IN) / 1.25)
    torch.testing.assert_close(encoded.double(), features * norms, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded.double(), reconstruction, rtol=1e-5, atol=1e-5)


def test_a_matryoshka_sae_encodes_as_any_other(tmp_path: Path) -> None:
    write_llamascopium(tmp_path, norms=(1.25, 1.25), sae_type="matryoshka_sae", matryoshka_widths=[12, 48])
    x = random(TOKENS, D_IN, seed=0) * 2
    encoded, _ = ours(read_checkpoint(tmp_path), x)
    torch.testing.assert_close(encoded.double(), of_llamascopium(x, (1.25, 1.25))[0], rtol=1e-5, atol=1e-5)


REFUSED = {
    "sae_type = 'crosscoder' is not supported .known: sae, matryoshka_sae": {"sae_type": "crosscoder"},
    "act_fn = 'batchtopk' is not supported .depends on what else": {"act_fn": "batchtopk"},
    "act_fn = 'layertopk'": {"act_fn": "layertopk"},
    "norm_activation = 'batch-wise'": {"norm_activation": "batch-wise"},
    "norm_activation = 'token-wise' is not supported .known: dataset-wise, inference.": {
        "norm_activation": "token-wise",
        **TRANSCODER,
    },
    "use_glu_encoder = true": {"use_glu_encoder": True},
    "says 16 numbers a token and 32 features, but the weights have 16 and 48": {"expansion_factor": 2},
    "says 16 numbers a token and 0 features": {"expansion_factor": 3.01},
    "expansion_factor = '3', expected a number above 0": {"expansion_factor": "3"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_understood_is_refused(message: str, tmp_path: Path) -> None:
    write_llamascopium(tmp_path, **REFUSED[message])  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf")])
def test_a_norm_that_was_never_measured_is_refused(norm: float, tmp_path: Path) -> None:
    write_llamascopium(tmp_path, norms=(norm, norm))
    with pytest.raises(CheckpointError, match=r"hook_resid_post of sae_weights.safetensors = .*, expected a number"):
        read_checkpoint(tmp_path)


def test_a_norm_that_is_not_used_may_be_anything(tmp_path: Path) -> None:
    """Llamascopium writes memory that nobody set where it has measured none."""
    write_llamascopium(tmp_path, norms=(float("nan"), 0.0), norm_activation="inference")
    assert read_checkpoint(tmp_path).normalize_activations == "none"


def scale_of(sae: PublishedSae) -> float:
    assert sae.norm_scaling_factor is not None
    return sae.norm_scaling_factor


@pytest.mark.parametrize("sae_id", R1)
@pytest.mark.parametrize("is_stored", [True, False])
def test_r1_distill_encodes_and_decodes_as_sae_lens(
    sae_id: str, is_stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoder vectors have norm 1: SAELens leaves their norms out. The model is that of the registry, not of its
    loader."""
    sae = published_sae("llama_scope_r1_distill", sae_id)
    write_llama_scope_r1_distill(tmp_path, sae.path, scale=scale_of(sae) if is_stored else None)
    weights = read_by_name(tmp_path, sae)
    theirs = read_by_sae_lens(monkeypatch, tmp_path, sae)
    assert_same_sae(weights, theirs)
    assert weights.record.hook == theirs.cfg.metadata.hook_name
    assert weights.record.model_name == "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    assert theirs.cfg.metadata.model_name == "meta-llama/Llama-3.1-8B"


def test_r1_distill_compares_with_the_norms_of_the_decoder_as_openmoss_does(tmp_path: Path) -> None:
    """Language-Model-SAEs of 2025: a mask of p times the norm, times p."""
    write_llama_scope_r1_distill(tmp_path, "sae", scale=2.0)
    file = tmp_path / "sae" / "sae_weights.safetensors"
    p = {**load_file(file), "decoder.weight": random(D_IN, D_SAE, seed=3)}
    save_file(p, file)
    x = random(TOKENS, D_IN, seed=0) * 2
    hidden = x.double() * 2 @ p["encoder.weight"].double().T + p["encoder.bias"].double()
    norm, threshold = p["decoder.weight"].double().norm(dim=0), p["log_jumprelu_threshold"].double().exp()
    encoded, _ = ours(read_checkpoint(tmp_path / "sae"), x)
    assert ((hidden > threshold) != (hidden * norm > threshold)).any()
    torch.testing.assert_close(encoded.double(), hidden * (hidden * norm > threshold), rtol=1e-5, atol=1e-5)


def test_r1_distill_whose_norm_is_not_that_of_the_registry_is_another_sae(tmp_path: Path) -> None:
    sae = published_sae("llama_scope_r1_distill", R1[0])
    write_llama_scope_r1_distill(tmp_path, sae.path, scale=scale_of(sae) * 1.01)
    with pytest.raises(CheckpointError, match=r"multiplied by 54.0\d+, but llama_scope_r1_distill/l0r_800m.* by 53.53"):
        read_by_name(tmp_path, sae)


def test_r1_distill_without_any_norm_asks_for_it(tmp_path: Path) -> None:
    write_llama_scope_r1_distill(tmp_path, "sae", scale=None)
    with pytest.raises(CheckpointError, match="set norm_scaling_factor of this SAE"):
        read_checkpoint(tmp_path / "sae")
    weights = read_checkpoint(tmp_path / "sae", norm_scaling_factor=3.5)
    write_llama_scope_r1_distill(tmp_path, "stored", scale=3.5)
    torch.testing.assert_close(weights.w_enc, read_checkpoint(tmp_path / "stored").w_enc)


def test_a_configuration_without_activation_function_goes_by_the_threshold(tmp_path: Path) -> None:
    """As SAELens, which asks for three entries of R1 Distill's alone."""
    write_llama_scope_r1_distill(tmp_path, "sae", act_fn=None)
    file = tmp_path / "sae" / "config.json"
    file.write_text(file.read_text().replace('"act_fn": null, ', ""))
    assert read_checkpoint(tmp_path / "sae").architecture == "jumprelu"


def test_saelens_with_another_config_beside_it_stays_saelens(tmp_path: Path) -> None:
    """Both forms have weights of one file name."""
    folder = tiny.make_sae(tmp_path / "sae")
    write_llamascopium(tmp_path / "other")
    (folder / "config.json").write_bytes((tmp_path / "other" / "config.json").read_bytes())
    assert read_checkpoint(folder).record.hook == read_checkpoint(tiny.make_sae(tmp_path / "alone")).record.hook
