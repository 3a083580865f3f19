"""circuit-tracer's transcoders as published, beside SAELens's loader of mwhanna's and circuit-tracer's formulas."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.saes.formats import CheckpointError, SAEWeights, place_of, read_checkpoint
from extraction_assets.engine.saes.published import published_sae
from extraction_assets.engine.saes.sae import SAE, matmul_precision
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    TOKENS,
    K,
    assert_same_sae,
    random,
    read_by_name,
    read_by_sae_lens,
    thresholds,
)
from extraction_assets_tests.engine.saes.formats.published_layouts_b import BF16, MWHANNA_CONFIG, write_mwhanna

LAYER = "layer_7.safetensors"
PUBLISHED = {
    "mwhanna-qwen3-4b-transcoders": (MWHANNA_CONFIG, "wandb-config.yaml", "Qwen/Qwen3-4B"),
    "mwhanna-qwen3-0.6b-transcoders-lowl0": (
        MWHANNA_CONFIG.replace("4B", "0.6B"),
        "wanb-config.yaml",
        "Qwen/Qwen3-0.6B",
    ),
    "mwhanna-qwen3-14b-transcoders": (None, "wandb-config.yaml", "Qwen/Qwen3-14B"),
}


@pytest.mark.parametrize("release", PUBLISHED)
def test_mwhannas_encode_and_decode_as_sae_lens(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = published_sae(release, "layer_7")
    config, training, model = PUBLISHED[release]
    write_mwhanna(tmp_path, sae.path, config=config, training=training)
    ours, theirs = read_by_name(tmp_path, sae), read_by_sae_lens(monkeypatch, tmp_path, sae)
    assert_same_sae(ours, theirs)
    metadata = theirs.cfg.metadata
    assert (ours.record.hook, ours.record.hook_out) == (metadata.hook_name, metadata.hook_name_out)
    assert ours.record.model_name == metadata.model_name == model


def of_circuit_tracer(x: Tensor, act: str, skip: Tensor | None) -> tuple[Tensor, Tensor]:
    """``SingleLayerTranscoder.encode``, ``decode`` and ``compute_skip`` in float64."""
    shapes = {"W_enc": (D_SAE, D_IN), "W_dec": (D_SAE, D_IN), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
    p = {name: random(*shape, seed=seed).to(BF16).double() for seed, (name, shape) in enumerate(shapes.items())}
    hidden = x.double() @ p["W_enc"].T + p["b_enc"]
    if act == "jumprelu":
        features = hidden * (hidden > thresholds(D_SAE, seed=5).double())
    elif act == "topk":
        features = hidden.where((hidden >= hidden.topk(K).values[:, -1:]) & (hidden > 0), 0)
    else:
        features = hidden.clamp(min=0)
    decoded = features @ p["W_dec"] + p["b_dec"]
    return features, decoded if skip is None else decoded + x.double() @ skip.double().T


def ours(weights: SAEWeights, x: Tensor) -> tuple[Tensor, Tensor]:
    sae = SAE(weights)
    with matmul_precision("highest"):
        sparse = SparseFeatures(*sae.encode_sparse(x)[:3], 4, TOKENS // 4, sae.latent_dim)
        return sae.encode(x), sae.decode(sparse, x.view(4, TOKENS // 4, -1)).view(TOKENS, -1)


@pytest.mark.parametrize("act", ["relu", "jumprelu", "topk"])
@pytest.mark.parametrize("skips", [True, False])
def test_other_transcoders_of_circuit_tracer_are_its_formula(act: str, skips: bool, tmp_path: Path) -> None:
    skip = random(D_IN, D_IN, seed=7) if skips else None
    tensors = {} if skip is None else {"W_skip": skip}
    if act == "jumprelu":
        tensors["activation_function.threshold"] = thresholds(D_SAE, seed=5)
    config = MWHANNA_CONFIG + (f"activation: topk\nk: {K}\n" if act == "topk" else "")
    write_mwhanna(tmp_path, LAYER, config=config, **tensors)
    x = random(TOKENS, D_IN, seed=0) * 3
    features, reconstruction = of_circuit_tracer(x, act, skip)
    encoded, decoded = ours(read_checkpoint(place_of(tmp_path / LAYER)), x)
    torch.testing.assert_close(encoded.double(), features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded.double(), reconstruction, rtol=1e-5, atol=1e-5)


def test_hooks_are_those_of_the_configuration(tmp_path: Path) -> None:
    config = (
        "model_name: meta-llama/Llama-3.2-1B\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    )
    write_mwhanna(tmp_path, LAYER, config=config)
    record = read_checkpoint(place_of(tmp_path / LAYER)).record
    assert (record.hook, record.hook_out) == ("blocks.7.hook_resid_mid", "blocks.7.hook_mlp_out")
    assert record.model_name == "meta-llama/Llama-3.2-1B"


def test_hooks_of_transcoders_of_which_nothing_is_known_are_not_guessed(tmp_path: Path) -> None:
    write_mwhanna(tmp_path, LAYER, config=None)
    (tmp_path / "wandb-config.yaml").unlink()
    record = read_checkpoint(place_of(tmp_path / LAYER)).record
    assert (record.hook, record.hook_out, record.model_name) == (None, None, None)


def test_a_copy_by_the_repositorys_name_has_the_hooks_of_mwhannas(tmp_path: Path) -> None:
    write_mwhanna(tmp_path / "qwen3-14b-transcoders", LAYER, config=None)
    record = read_checkpoint(place_of(tmp_path / "qwen3-14b-transcoders" / LAYER)).record
    assert (record.hook, record.hook_out) == ("blocks.7.mlp.hook_in", "blocks.7.hook_mlp_out")
    assert record.model_name == "Qwen/Qwen3-14B"


REFUSED = {
    "activation = 'gelu' is not supported .known: relu, topk, jumprelu.": "activation: gelu\n",
    "k must be a whole number, got None": "activation: topk\n",
    "lacks activation_function.threshold, which config.yaml asks for": "activation: jumprelu\n",
    "model_kind = 'cross_layer_transcoder' is not supported": "model_kind: cross_layer_transcoder\n",
    "config.yaml is not a YAML mapping": "- 1\n",
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_understood_is_refused(message: str, tmp_path: Path) -> None:
    write_mwhanna(tmp_path, LAYER, config=REFUSED[message])
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(place_of(tmp_path / LAYER))


TRAINED_OTHERWISE = {
    "wandb-config.yaml says d_feature = 47, but W_enc of layer_7.safetensors has 48": "d_feature:\n  value: 47\n",
    "wandb-config.yaml: act_fn = 'gelu' is not supported": "act_fn:\n  value: gelu\n",
    "d_model must be a whole number, got 'x'": "d_model:\n  value: x\n",
}


@pytest.mark.parametrize("message", TRAINED_OTHERWISE)
def test_a_training_that_contradicts_the_weights_is_refused(message: str, tmp_path: Path) -> None:
    write_mwhanna(tmp_path, LAYER)
    (tmp_path / "wandb-config.yaml").write_text(TRAINED_OTHERWISE[message])
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(place_of(tmp_path / LAYER))
