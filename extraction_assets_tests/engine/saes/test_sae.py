"""Encoding and decoding against float64 formulas written out here, and exactness where it is promised."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from extraction_assets.engine.saes.activation import Firings
from extraction_assets.engine.saes.formats import SAEWeights, read_checkpoint
from extraction_assets.engine.saes.input import SaeInput
from extraction_assets.engine.saes.sae import SAE, load_sae, matmul_precision, variance_explained
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets_tests import tiny
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.conftest import ARCHITECTURES

TOKENS = 24


def hook_output(tokens: int = TOKENS, seed: int = 0) -> Tensor:
    return torch.randn(tokens, tiny.D_MODEL, generator=torch.Generator().manual_seed(seed))


def reference(folder: Path, activations: Tensor) -> np.ndarray:
    """The published formulas in float64, from the checkpoint's files."""
    config = json.loads((folder / "cfg.json").read_text())
    weights = {name: tensor.double().numpy() for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
    x = activations.double().numpy() - (weights["b_dec"] if config["apply_b_dec_to_input"] else 0)
    product = x @ weights["W_enc"]
    if config["architecture"] == "gated":
        magnitude = product * np.exp(weights["r_mag"]) + weights["b_mag"]
        return np.maximum(magnitude, 0) * (product + weights["b_gate"] > 0)
    pre = product + weights["b_enc"]
    if config.get("rescale_acts_by_decoder_norm"):
        pre = pre * np.linalg.norm(weights["W_dec"], axis=1)
    if config["architecture"] == "jumprelu":
        return np.maximum(pre, 0) * (pre > weights["threshold"])
    if config["architecture"] == "topk":
        kept = np.argsort(-pre, axis=1, kind="stable")[:, : config["k"]]
        mask = np.zeros_like(pre, dtype=bool)
        np.put_along_axis(mask, kept, True, axis=1)
        pre = np.where(mask, pre, 0)
    return np.maximum(pre, 0)


def dense_of(encoded: Firings, tokens: int, latent_dim: int) -> Tensor:
    dense = torch.zeros(tokens, latent_dim)
    dense[encoded.tokens, encoded.features] = encoded.values
    return dense


def sae_of(w_enc: list[list[float]], architecture: Any = "standard", **changes: Any) -> SAE:
    """An SAE with this encoder matrix [d_in, F]; its other parameters are zeros unless given."""
    matrix = torch.tensor(w_enc, dtype=torch.float32)
    d_in, latent_dim = matrix.shape
    zeros = {"b_enc": torch.zeros(latent_dim), "w_dec": torch.zeros(latent_dim, d_in), "b_dec": torch.zeros(d_in)}
    return SAE(SAEWeights(**{"architecture": architecture, "w_enc": matrix, **zeros, **changes}))


# Formulas


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encode_follows_the_published_formula(architecture: str, sae_folders: dict[str, Path]) -> None:
    folder = sae_folders[architecture]
    features = load_sae(folder).encode(hook_output())
    expected = reference(folder, hook_output())
    assert features.dtype == torch.float32
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_allclose(features.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_b_dec_is_left_in_the_input_where_the_checkpoint_says_so(architecture: str, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", architecture, apply_b_dec_to_input=False)
    features = load_sae(folder).encode(hook_output())
    np.testing.assert_allclose(features.numpy(), reference(folder, hook_output()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_pre_activations_are_rescaled_by_decoder_norms(architecture: str, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", architecture, rescale_acts_by_decoder_norm=True)
    features = load_sae(folder).encode(hook_output())
    np.testing.assert_allclose(features.numpy(), reference(folder, hook_output()), rtol=1e-5, atol=1e-6)


def test_hand_computed_features_of_each_architecture() -> None:
    matrix, x = [[1.0, -1.0, 2.0]], torch.tensor([[2.0]])
    assert sae_of(matrix).encode(x).tolist() == [[2, 0, 4]]
    assert sae_of(matrix, "topk", k=1).encode(x).tolist() == [[0, 0, 4]]
    threshold = {"threshold": torch.tensor([2.0, -9.0, 3.0])}  # a pre-activation at its threshold does not fire
    assert sae_of(matrix, "jumprelu", extra=threshold).encode(x).tolist() == [[0, 0, 4]]
    gate = {"r_mag": torch.zeros(3), "b_mag": torch.tensor([1.0, 9.0, -9.0])}
    assert sae_of(matrix, "gated", extra=gate).encode(x).tolist() == [[3, 0, 0]]


def test_half_precision_hook_output_is_encoded_in_float32(sae_folders: dict[str, Path]) -> None:
    sae, half = load_sae(sae_folders["standard"]), hook_output().bfloat16()
    assert torch.equal(sae.encode(half), sae.encode(half.float()))


def test_the_hook_output_is_left_as_it_was(sae_folders: dict[str, Path]) -> None:
    activations = hook_output()
    for folder in sae_folders.values():
        load_sae(folder).encode(activations)
    assert torch.equal(activations, hook_output())


# What is done to the input


def test_a_centered_input_is_without_its_mean_over_the_width() -> None:
    centered = sae_of([[1.0], [2.0]], center_input=True)
    assert centered.encode(torch.tensor([[5.0, 9.0], [9.0, 5.0]])).tolist() == [[2.0], [0.0]]  # [-2, 2] and [2, -2]


def test_centering_gives_what_a_centered_model_would_give(sae_folders: dict[str, Path]) -> None:
    """Whatever is added to all numbers of a token has no part in it."""
    shift = torch.arange(TOKENS)[:, None] / 4
    for folder in sae_folders.values():
        own = SAE(read_checkpoint(folder, center_input=True))
        torch.testing.assert_close(own.encode(hook_output() + shift), own.encode(hook_output()), rtol=1e-4, atol=1e-5)
        x = hook_output() - hook_output().mean(dim=1, keepdim=True)
        torch.testing.assert_close(own.encode(hook_output()), load_sae(folder).encode(x), rtol=1e-5, atol=1e-6)


def test_reconstructions_are_of_centered_activations(sae_folders: dict[str, Path]) -> None:
    own = SAE(read_checkpoint(sae_folders["standard"], center_input=True))
    x = hook_output().bfloat16()
    torch.testing.assert_close(own.target(x), x.float() - x.float().mean(dim=1, keepdim=True))
    assert torch.equal(load_sae(sae_folders["standard"]).target(x), x.float())


@pytest.mark.parametrize("normalize", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("tile", [1, 2, 6, 24])
def test_a_normalized_token_does_not_depend_on_the_other_tiles(normalize: str, tile: int, tmp_path: Path) -> None:
    sae = load_sae(tiny.make_sae(tmp_path / "sae", d_in=1031, d_sae=64, normalize_activations=normalize))
    x = torch.randn(TOKENS, 1031, generator=torch.Generator().manual_seed(0))
    apart = torch.cat([sae.encode_sparse(rows, tile).values for rows in x.split(tile)])
    assert torch.equal(sae.encode_sparse(x, tile).values, apart)


def test_sums_over_the_width_are_taken_of_one_tile_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the number of rows decides how a row is summed."""
    sae = load_sae(tiny.make_sae(tmp_path / "sae", normalize_activations="layer_norm"))
    real, rows = SaeInput._normalized, list[int]()
    monkeypatch.setattr(SaeInput, "_normalized", lambda self, x: rows.append(len(x)) or real(self, x))
    sae.encode_sparse(hook_output(), 6)
    assert rows == [6, 6, 6, 6]


def test_a_normalized_token_that_is_not_finite_is_marked_alone(tmp_path: Path) -> None:
    for normalize in ("layer_norm", "constant_norm_rescale"):
        sae = load_sae(tiny.make_sae(tmp_path / normalize, normalize_activations=normalize))
        activations = hook_output()
        activations[5, 3] = float("inf")
        assert (~sae.encode_sparse(activations, 6).finite).nonzero().squeeze(1).tolist() == [5]


def test_a_reconstruction_that_depends_on_the_input_asks_for_it(tmp_path: Path) -> None:
    sae = load_sae(tiny.make_sae(tmp_path / "sae", normalize_activations="layer_norm"))
    features = SparseFeatures(*sae.encode_sparse(hook_output())[:3], 4, 6, sae.latent_dim)
    with pytest.raises(ValueError, match="depends on what was encoded: give decode the activations"):
        sae.decode(features)
    assert sae.decode(features, hook_output().view(4, 6, -1)).shape == (4, 6, tiny.D_MODEL)


# Sparse encoding


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encode_sparse_is_encode_without_zeros(architecture: str, sae_folders: dict[str, Path]) -> None:
    sae = load_sae(sae_folders[architecture])
    encoded, dense = sae.encode_sparse(hook_output()), sae.encode(hook_output())
    tokens, features = (dense > 0).nonzero(as_tuple=True)
    assert torch.equal(encoded.tokens, tokens)
    assert torch.equal(encoded.features, features)
    assert torch.equal(encoded.values, dense[tokens, features])
    assert encoded.finite.all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tile", [1, 2, 6, 24])
def test_a_token_in_a_tile_does_not_depend_on_the_other_tiles(
    architecture: str, tile: int, sae_folders: dict[str, Path]
) -> None:
    sae, activations = load_sae(sae_folders[architecture]), hook_output()
    together = dense_of(sae.encode_sparse(activations, tile), TOKENS, sae.latent_dim)
    apart = [
        dense_of(sae.encode_sparse(rows, tile), len(rows), sae.latent_dim) for rows in activations.split(max(tile, 6))
    ]
    assert torch.equal(together, torch.cat(apart))


def test_tokens_that_do_not_fill_their_tiles_are_refused(sae_folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="24 tokens are not a whole number of tiles of 5"):
        load_sae(sae_folders["standard"]).encode_sparse(hook_output(), 5)


def test_no_tokens_have_no_firings(sae_folders: dict[str, Path]) -> None:
    for folder in sae_folders.values():
        assert [len(column) for column in load_sae(folder).encode_sparse(hook_output(0))] == [0, 0, 0, 0]


# Tokens that are not wanted

WANTED = torch.arange(TOKENS) % 5 > 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tile", [1, 6, 24])
@pytest.mark.parametrize("rubbish", [0.0, float("nan"), float("inf"), float("-inf"), 3e38])
def test_unwanted_tokens_have_no_firings_and_may_hold_anything(
    architecture: str, tile: int, rubbish: float, sae_folders: dict[str, Path]
) -> None:
    sae, activations = load_sae(sae_folders[architecture]), hook_output()
    everything = dense_of(sae.encode_sparse(activations, tile), TOKENS, sae.latent_dim)
    encoded = sae.encode_sparse(activations.where(WANTED[:, None], rubbish), tile, WANTED)
    assert torch.equal(dense_of(encoded, TOKENS, sae.latent_dim), everything.where(WANTED[:, None], 0.0))
    assert encoded.finite.all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_wanted_token_that_is_not_finite_is_marked_among_unwanted_ones(
    architecture: str, sae_folders: dict[str, Path]
) -> None:
    activations = hook_output()
    activations[[4, 5], 3] = float("nan")  # 4 is wanted, 5 is not
    assert WANTED[4] & ~WANTED[5]
    finite = load_sae(sae_folders[architecture]).encode_sparse(activations, 6, WANTED).finite
    assert (~finite).nonzero().squeeze(1).tolist() == [4]


def test_ties_of_topk_are_resolved_at_wanted_tokens_alone() -> None:
    sae = sae_of([[1.0, 2.0, 1.0, 1.0]], "topk", k=2)
    encoded = sae.encode_sparse(torch.tensor([[1.0], [2.0], [3.0]]), 1, torch.tensor([True, False, True]))
    assert dense_of(encoded, 3, 4).tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [3, 6, 0, 0]]


# Ties of topk


def test_topk_ties_go_to_the_lower_feature() -> None:
    sae = sae_of([[1.0, 2.0, 1.0, 1.0, 1.0]], "topk", k=3)
    assert sae.encode(torch.tensor([[1.0], [2.0]])).tolist() == [[1, 2, 1, 0, 0], [2, 4, 2, 0, 0]]


def test_topk_keeps_no_activation_that_is_not_positive() -> None:
    encoded = sae_of([[1.0, 0.0, -0.0, -1.0]], "topk", k=3).encode_sparse(torch.tensor([[1.0], [-1.0], [0.0]]))
    assert list(zip(encoded.tokens.tolist(), encoded.features.tolist(), strict=True)) == [(0, 0), (1, 3)]


@given(st.lists(st.lists(st.integers(-2, 3), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 6))
def test_topk_is_a_stable_descending_sort(pre: list[list[int]], k: int) -> None:
    sae = sae_of(np.eye(6).tolist(), "topk", k=k)
    kept = np.argsort(-np.array(pre), axis=1, kind="stable")[:, :k]
    expected = np.zeros((len(pre), 6))
    np.put_along_axis(expected, kept, np.take_along_axis(np.array(pre), kept, axis=1), axis=1)
    assert sae.encode(torch.tensor(pre, dtype=torch.float32)).tolist() == np.maximum(expected, 0).tolist()


# Numbers that are not finite


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_a_token_that_is_not_finite_is_marked_alone(
    architecture: str, wrong: float, sae_folders: dict[str, Path]
) -> None:
    activations = hook_output()
    activations[5, 3] = wrong
    finite = load_sae(sae_folders[architecture]).encode_sparse(activations, 6).finite
    assert (~finite).nonzero().squeeze(1).tolist() == [5]


def test_finite_pre_activations_whose_sum_overflows_are_finite() -> None:
    encoded = sae_of([[3e38, 3e38, 3e38]]).encode_sparse(torch.tensor([[1.0], [2.0]]))
    assert encoded.finite.tolist() == [True, False]


# Decoding


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("rescaled", [False, True])
def test_decode_is_the_dense_product(architecture: str, rescaled: bool, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", architecture, rescale_acts_by_decoder_norm=rescaled)
    sae, weights = load_sae(folder), load_file(folder / "sae_weights.safetensors")
    encoded = sae.encode_sparse(hook_output())
    dense = dense_of(encoded, TOKENS, sae.latent_dim)
    if rescaled:
        dense = dense / weights["W_dec"].norm(dim=1)
    expected = (dense @ weights["W_dec"] + weights["b_dec"]).view(4, 6, tiny.D_MODEL)
    decoded = sae.decode(SparseFeatures(*encoded[:3], 4, 6, sae.latent_dim))
    torch.testing.assert_close(decoded, expected, rtol=1e-5, atol=1e-5)


def test_a_token_without_firings_decodes_to_the_bias() -> None:
    sae = sae_of([[1.0]], b_dec=torch.tensor([0.5]), w_dec=torch.tensor([[2.0]]))
    features = SparseFeatures(torch.tensor([1]), torch.tensor([0]), torch.tensor([3.0]), 1, 3, 1)
    assert sae.decode(features).tolist() == [[[0.5], [6.5], [0.5]]]


def test_variance_explained_by_hand() -> None:
    x = torch.tensor([[[1.0], [3.0], [100.0]]])
    reconstruction = torch.tensor([[[1.5], [3.0], [0.0]]])
    counted = torch.tensor([[True, True, False]])
    assert variance_explained(x, reconstruction, counted) == 1 - 0.25 / 2
    assert variance_explained(x, x, counted) == 1
    assert variance_explained(x, torch.full_like(x, 2.0), counted) == 0


@pytest.mark.parametrize("x", [[[[1.0], [2.0]]], [[[2.0], [2.0]]]])
def test_variance_of_one_position_or_of_equal_ones_is_nan(x: list[Any]) -> None:
    counted = torch.tensor([[True, x[0][0] == x[0][1]]])
    assert np.isnan(variance_explained(torch.tensor(x), torch.zeros(1, 2, 1), counted))


def test_matmul_precision_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    with matmul_precision("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before


def test_matmul_precision_is_put_back_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), matmul_precision("medium"):
        raise KeyError
    assert torch.get_float32_matmul_precision() == before


def test_an_sae_says_what_it_is(sae_folders: dict[str, Path]) -> None:
    sae = load_sae(str(sae_folders["topk"]))
    assert (sae.architecture, sae.d_in, sae.latent_dim, sae.k) == ("topk", tiny.D_MODEL, tiny.NUM_FEATURES, 6)


def test_encoding_the_same_twice_gives_the_same_bits(sae_folders: dict[str, Path]) -> None:
    sae = load_sae(sae_folders["gated"])
    assert_same(sae.encode_sparse(hook_output(), 6), sae.encode_sparse(hook_output(), 6))
