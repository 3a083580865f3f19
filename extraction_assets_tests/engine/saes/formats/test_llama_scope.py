"""Llama Scope as published, beside OpenMOSS's formula in float64 and SAELens's loader."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from extraction_assets.engine.saes.formats import CheckpointError, SAEWeights, place_of, read_checkpoint
from extraction_assets.engine.saes.published import PublishedSae, published_sae
from extraction_assets.engine.saes.sae import SAE, matmul_precision
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    TOKENS,
    assert_same_sae,
    random,
    read_by_name,
    read_by_sae_lens,
)
from extraction_assets_tests.engine.saes.formats.published_layouts_b import (
    BF16,
    K,
    linear_parameters,
    write_llama_scope,
)

NAMES = {
    "llama_scope_lxr_8x": "l15r_8x",
    "llama_scope_lxa_32x": "l0a_32x",
    "llama_scope_lxm_8x": "l31m_8x",
}


def of_openmoss(folder: Path, x: Tensor, threshold: float, s_in: float, s_out: float) -> tuple[Tensor, Tensor]:
    """Features and reconstruction [N, F], [N, D] in float64 as Language-Model-SAEs of 2024 gives them.

    ``SparseAutoEncoder.from_config``: the dataset's norm goes into biases and decoder, then decoder vectors get
    norm 1; ``encode``: JumpReLU. Its features are smaller than SAELens's by s_out.
    """
    p = {name: tensor.double() for name, tensor in load_file(folder / "checkpoints" / "final.safetensors").items()}
    encoder_bias, decoder_bias = p["encoder.bias"] / s_in, p["decoder.bias"] / s_out
    decoder = p["decoder.weight"] * s_in / s_out
    norm = decoder.norm(dim=0)
    hidden = x.double() @ (p["encoder.weight"] * norm[:, None]).T + encoder_bias * norm
    features = hidden.where(hidden > threshold, 0)
    return features, features @ (decoder / norm).T + decoder_bias


def ours(weights: SAEWeights, x: Tensor) -> tuple[Tensor, Tensor]:
    sae = SAE(weights)
    with matmul_precision("highest"):
        sparse = SparseFeatures(*sae.encode_sparse(x)[:3], 4, TOKENS // 4, sae.latent_dim)
        return sae.encode(x), sae.decode(sparse, x.view(4, TOKENS // 4, -1)).view(TOKENS, -1)


def scale_of(sae: PublishedSae) -> float:
    assert sae.norm_scaling_factor is not None
    return sae.norm_scaling_factor


@pytest.mark.parametrize("release", NAMES)
def test_llama_scope_is_the_published_formula_in_units_of_the_normalised_input(release: str, tmp_path: Path) -> None:
    """Also where decoder vectors have other norms than 1, which SAELens takes for granted."""
    sae = published_sae(release, NAMES[release])
    s, x = scale_of(sae), random(TOKENS, D_IN, seed=0) * 3 / scale_of(sae)
    write_llama_scope(tmp_path, sae.path, scale=s, tensors=linear_parameters(dtype=BF16))
    features, reconstruction = of_openmoss(tmp_path / sae.path, x, 0.52734375 / s, s, s)
    encoded, decoded = ours(read_by_name(tmp_path, sae), x)
    assert 0.05 < (features > 0).double().mean() < 0.7
    torch.testing.assert_close(encoded.double(), features * s, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded.double(), reconstruction, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("release", NAMES)
def test_llama_scope_in_float32_is_what_sae_lens_reads_in_float32(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoder vectors of norm 1, as published: SAELens leaves their norms out."""
    sae = published_sae(release, NAMES[release])
    exact = {name: tensor.to(BF16).float() for name, tensor in linear_parameters().items()}
    exact["decoder.weight"] /= exact["decoder.weight"].norm(dim=0)
    write_llama_scope(tmp_path, sae.path, scale=scale_of(sae), tensors=exact)
    weights = read_by_name(tmp_path, sae)
    theirs = read_by_sae_lens(monkeypatch, tmp_path, sae)
    assert_same_sae(weights, theirs)
    assert (weights.record.hook, weights.record.model_name) == ("blocks.15.hook_resid_post", sae.model)


def test_sae_lens_flips_firings_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dtype of its loader. What it makes of the same file differs from the formula by whole features."""
    sae = published_sae("llama_scope_lxr_8x", "l15r_8x")
    write_llama_scope(tmp_path, sae.path, scale=scale_of(sae))
    x = random(TOKENS, D_IN, seed=0) * 3 / scale_of(sae)
    theirs = read_by_sae_lens(monkeypatch, tmp_path, sae, dtype="bfloat16")
    with torch.no_grad():
        rounded = theirs.encode(x.to(BF16)).float()
    encoded, _ = ours(read_by_name(tmp_path, sae), x)
    assert ((rounded > 0) != (encoded > 0)).any()
    torch.testing.assert_close(
        encoded[(rounded > 0) & (encoded > 0)], rounded[(rounded > 0) & (encoded > 0)], rtol=0.1, atol=0.1
    )


def test_a_transcoder_of_the_series_has_a_factor_for_each_side(tmp_path: Path) -> None:
    """Published as LXTC, which SAELens does not have: its output is far smaller than its input."""
    norms = {"in": 4.0, "out": 0.25}
    hooks = {"hook_point_in": "blocks.8.ln2.hook_normalized", "hook_point_out": "blocks.8.hook_mlp_out"}
    write_llama_scope(
        tmp_path, "sae", tensors=linear_parameters(), dataset_average_activation_norm=norms, jump_relu_threshold=0.05,
        **hooks,
    )  # fmt: skip
    x = random(TOKENS, D_IN, seed=0) * 3
    features, reconstruction = of_openmoss(tmp_path / "sae", x, 0.05, 1.0, 16.0)
    weights = read_checkpoint(tmp_path / "sae")
    encoded, decoded = ours(weights, x)
    torch.testing.assert_close(encoded.double(), features * 16, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded.double(), reconstruction, rtol=1e-5, atol=1e-5)
    assert (weights.record.hook, weights.record.hook_out) == tuple(hooks.values())


def test_a_topk_keeps_the_k_largest_of_decoder_vectors_of_norm_1(tmp_path: Path) -> None:
    write_llama_scope(
        tmp_path, "sae", scale=1, tensors=linear_parameters(), act_fn="topk", top_k=K, jump_relu_threshold=0
    )
    x = random(TOKENS, D_IN, seed=0) * 3
    hidden, _ = of_openmoss(tmp_path / "sae", x, 0.0, 1, 1)
    kept = hidden.where(hidden >= hidden.topk(K).values[:, -1:], 0)
    encoded, _ = ours(read_checkpoint(tmp_path / "sae"), x)
    torch.testing.assert_close(encoded.double(), kept, rtol=1e-5, atol=1e-5)


def test_a_topk_with_a_threshold_was_converted_to_a_jumprelu(tmp_path: Path) -> None:
    write_llama_scope(tmp_path, "sae", act_fn="topk", jump_relu_threshold=0.5)
    assert read_checkpoint(tmp_path / "sae").architecture == "jumprelu"


def test_the_series_is_known_by_the_folders_name(tmp_path: Path) -> None:
    inside = "Llama3_1-8B-Base-L15R-8x"
    write_llama_scope(tmp_path, inside)
    record = read_checkpoint(place_of(tmp_path / inside)).record
    assert (record.model_name, record.prepend_bos, record.context_size) == ("meta-llama/Llama-3.1-8B", True, 1024)


def test_of_an_unknown_folder_the_hook_alone_is_known(tmp_path: Path) -> None:
    write_llama_scope(tmp_path, "sae")
    record = read_checkpoint(tmp_path / "sae").record
    assert dataclasses.asdict(record)["hook"] == "blocks.15.hook_resid_post"
    assert (record.model_name, record.is_transcoder) == (None, False)


def test_a_decoder_without_a_bias_has_one_of_zeros(tmp_path: Path) -> None:
    tensors = linear_parameters()
    del tensors["decoder.bias"]
    write_llama_scope(tmp_path, "sae", tensors=tensors, use_decoder_bias=False)
    assert read_checkpoint(tmp_path / "sae").b_dec.tolist() == [0] * D_IN


def test_a_bias_before_the_encoder_is_subtracted_in_units_of_the_normalised_input(tmp_path: Path) -> None:
    write_llama_scope(tmp_path, "sae", scale=2, tensors=linear_parameters(), apply_decoder_bias_to_pre_encoder=True)
    p = {name: tensor.double() for name, tensor in linear_parameters().items()}
    x, norm = random(TOKENS, D_IN, seed=0), p["decoder.weight"].norm(dim=0)
    hidden = ((x.double() * 2 - p["decoder.bias"]) @ p["encoder.weight"].T + p["encoder.bias"]) * norm
    encoded, _ = ours(read_checkpoint(tmp_path / "sae"), x)
    torch.testing.assert_close(encoded.double(), hidden.where(hidden > 0.52734375, 0), rtol=1e-5, atol=1e-5)


REFUSED = {
    "act_fn = 'batchtopk'": {"act_fn": "batchtopk"},
    "act_fn = 'gelu' is not supported .known: relu, jumprelu, topk.": {"act_fn": "gelu"},
    "norm_activation = 'batch-wise'": {"norm_activation": "batch-wise"},
    "norm_activation = 'median'": {"norm_activation": "median"},
    "use_glu_encoder = true": {"use_glu_encoder": True},
    "says 16 numbers a token and 47 features, but the weights have 16 and 48": {"d_sae": 47},
    "dataset_average_activation_norm = None": {"dataset_average_activation_norm": None},
    "dataset_average_activation_norm.out = 0, expected a number above 0": {
        "dataset_average_activation_norm": {"in": 2.0, "out": 0}
    },
    "of one hook is 2.0 in and 3.0 out": {"dataset_average_activation_norm": {"in": 2.0, "out": 3.0}},
    "jump_relu_threshold = -1, expected a number above 0": {"jump_relu_threshold": -1},
    "apply_decoder_bias_to_pre_encoder = 'no'": {"apply_decoder_bias_to_pre_encoder": "no"},
    "sparsity_include_decoder_norm = 1": {"sparsity_include_decoder_norm": 1},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_understood_is_refused(message: str, tmp_path: Path) -> None:
    write_llama_scope(tmp_path, "sae", **REFUSED[message])  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "sae")


def test_weights_of_two_widths_are_refused_before_they_are_folded(tmp_path: Path) -> None:
    write_llama_scope(tmp_path, "sae", tensors={**linear_parameters(), "decoder.weight": torch.ones(D_IN, D_SAE - 1)})
    with pytest.raises(CheckpointError, match=r"final.safetensors: W_dec has shape \(47, 16\), expected \(48, 16\)"):
        read_checkpoint(tmp_path / "sae")
