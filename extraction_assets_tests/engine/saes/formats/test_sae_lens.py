"""Checkpoints made and saved by sae-lens encode and decode as sae-lens itself does. sae-lens is needed here alone."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from extraction_assets.engine.saes.formats import CheckpointError, read_checkpoint
from extraction_assets.engine.saes.sae import SAE, load_sae, matmul_precision
from extraction_assets.engine.shapes import SparseFeatures

D_IN, D_OUT, D_SAE, TOKENS = 16, 24, 48, 24


@pytest.fixture(scope="module")
def sae_lens() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import sae_lens
    return sae_lens


@pytest.fixture
def hook_output() -> Tensor:
    return torch.randn(TOKENS, D_IN, generator=torch.Generator().manual_seed(0)) + 0.25


def randomized(sae: Any, seed: int = 1) -> Any:
    """The SAE with random parameters, so that no bias and no threshold is zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sae.named_parameters():
        values = torch.randn(parameter.shape, generator=generator) * 0.4
        parameter.data = values.abs() + 0.05 if name == "threshold" else values
    return sae.eval()


def made(sae_lens: Any, kind: str, **config: Any) -> Any:
    """An SAE of sae-lens by the prefix of its class; d_out for transcoders alone."""
    if "Transcoder" in kind:
        config = {"d_out": D_OUT, "apply_b_dec_to_input": False, **config}
    own = getattr(sae_lens, f"{kind}Config")(d_in=D_IN, d_sae=D_SAE, **config)
    return randomized(getattr(sae_lens, kind)(own))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)


def assert_agree(own: SAE, theirs: Any, x: Tensor) -> None:
    with torch.no_grad(), matmul_precision("highest"):
        features, reconstruction = theirs.encode(x), theirs(x)
        x = x.reshape(TOKENS, D_IN)
        firings = own.encode_sparse(x)
        sparse = SparseFeatures(*firings[:3], 4, 6, D_SAE)
        decoded = own.decode(sparse, x.view(4, 6, D_IN))
    assert 0 < len(firings.values) < 0.7 * features.numel()
    close(own.encode(x), features.reshape(TOKENS, D_SAE))
    close(decoded.view(TOKENS, -1), reconstruction.reshape(TOKENS, -1))


PLAIN = ["StandardSAE", "JumpReLUSAE", "GatedSAE", "TopKSAE", "TopKSAE rescaled"]
TRANSCODERS = ["Transcoder", "SkipTranscoder", "JumpReLUTranscoder", "JumpReLUSkipTranscoder"]


def options(kind: str) -> dict[str, Any]:
    name, _, rescaled = kind.partition(" ")
    return ({"k": 7} if name == "TopKSAE" else {}) | ({"rescale_acts_by_decoder_norm": True} if rescaled else {})


@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("apply_b_dec", [True, False])
@pytest.mark.parametrize("kind", PLAIN)
def test_saes(sae_lens: Any, kind: str, apply_b_dec: bool, normalize: str, hook_output: Tensor, tmp_path: Path) -> None:
    theirs = made(
        sae_lens,
        kind.split()[0],
        apply_b_dec_to_input=apply_b_dec,
        normalize_activations=normalize,
        **options(kind),
    )
    theirs.save_model(tmp_path)
    assert_agree(load_sae(tmp_path), theirs, hook_output)


@pytest.mark.parametrize("normalize", ["none", "layer_norm"])
@pytest.mark.parametrize("kind", TRANSCODERS)
def test_transcoders(sae_lens: Any, kind: str, normalize: str, hook_output: Tensor, tmp_path: Path) -> None:
    theirs = made(sae_lens, kind, normalize_activations=normalize)
    theirs.save_model(tmp_path)
    own = load_sae(tmp_path)
    assert (own.d_in, own.d_out) == (D_IN, D_OUT)
    assert_agree(own, theirs, hook_output)


TRAINED = {
    "TopKTrainingSAE": {"k": 7},
    "StandardTrainingSAE": {},
    "GatedTrainingSAE": {},
    "JumpReLUTrainingSAE": {},
    "BatchTopKTrainingSAE": {"k": 7},
    "MatryoshkaBatchTopKTrainingSAE": {"k": 7, "matryoshka_widths": [12, D_SAE]},
}


@pytest.mark.parametrize("kind", TRAINED)
def test_what_is_trained_is_read_as_what_is_exported(
    sae_lens: Any, kind: str, hook_output: Tensor, tmp_path: Path
) -> None:
    """batchtopk and matryoshka choose among a whole batch in training, and become jumprelu when they are exported."""
    trained = made(sae_lens, kind, **TRAINED[kind])
    if "Batch" in kind:
        trained.topk_threshold.fill_(0.8)
    trained.save_model(tmp_path / "trained")
    trained.save_inference_model(tmp_path / "exported")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "exported")
    assert theirs.cfg.architecture() == ("jumprelu" if "Batch" in kind else trained.cfg.architecture())
    assert_agree(load_sae(tmp_path / "exported"), theirs, hook_output)
    own = load_sae(tmp_path / "trained")
    with torch.no_grad():
        close(own.encode(hook_output), theirs.encode(hook_output))


def test_hook_z_is_read_with_its_heads_side_by_side(sae_lens: Any, hook_output: Tensor, tmp_path: Path) -> None:
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name="blocks.1.attn.hook_z")
    theirs = made(sae_lens, "StandardSAE", reshape_activations="hook_z", metadata=metadata)
    theirs.save_model(tmp_path)
    assert_agree(load_sae(tmp_path), theirs, hook_output.view(TOKENS, 4, D_IN // 4))


@pytest.mark.parametrize("kind", [*PLAIN, "BatchTopKTrainingSAE"])
def test_expected_average_only_in_is_folded_as_sae_lens_does(
    sae_lens: Any, kind: str, hook_output: Tensor, tmp_path: Path
) -> None:
    own = TRAINED.get(kind, options(kind))
    theirs = made(sae_lens, kind.split()[0], normalize_activations="expected_average_only_in", **own)
    if kind in TRAINED:
        theirs.topk_threshold.fill_(0.8)
    theirs.save_model(tmp_path / "scaled")
    with pytest.raises(CheckpointError, match=r"needs the scale .* set norm_scaling_factor"):
        load_sae(tmp_path / "scaled")
    ours = SAE(read_checkpoint(tmp_path / "scaled", norm_scaling_factor=1.75))
    theirs.fold_activation_norm_scaling_factor(1.75)
    if kind in TRAINED:
        theirs.save_inference_model(tmp_path / "folded")
        theirs = sae_lens.SAE.load_from_disk(tmp_path / "folded")
        with torch.no_grad():
            close(ours.encode(hook_output), theirs.encode(hook_output))
    else:
        assert_agree(ours, theirs, hook_output)


@pytest.mark.parametrize("kind", ["StandardSAE", "JumpReLUSAE", "GatedSAE", "TopKSAE rescaled", *TRANSCODERS])
def test_decoder_norms_are_folded_as_sae_lens_does(
    sae_lens: Any, kind: str, hook_output: Tensor, tmp_path: Path
) -> None:
    theirs = made(sae_lens, kind.split()[0], **options(kind))
    theirs.save_model(tmp_path)
    before = load_sae(tmp_path).encode(hook_output)
    theirs.fold_W_dec_norm()
    own = SAE(read_checkpoint(tmp_path, fold_decoder_norm=True))
    assert_agree(own, theirs, hook_output)
    assert torch.allclose(own.encode(hook_output), before) == (kind == "TopKSAE rescaled")  # has its norms already


def flat_config(**changes: Any) -> dict[str, Any]:
    """``cfg.json`` as sae-lens 2 to 5 wrote it."""
    return {
        "model_name": "gpt2-small",
        "hook_point": "blocks.1.hook_resid_pre",
        "hook_point_layer": 1,
        "hook_point_head_index": None,
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "torch.float32",
        "device": "cpu",
        "prepend_bos": True,
        "context_size": 128,
        "dataset_path": "Skylion007/openwebtext",
        "activation_fn_str": "relu",
        "finetuning_scaling_factor": False,
        **changes,
    }


OLD: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing said": ("StandardSAE", {}),
    "b_dec left in": ("StandardSAE", {"apply_b_dec_to_input": False}),
    "topk as an activation": ("TopKSAE", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7}}),
    "topk as an architecture": ("TopKSAE", {"architecture": "topk", "activation_fn_kwargs": {"k": 7}}),
    "jumprelu": ("JumpReLUSAE", {"architecture": "jumprelu", "activation_fn_str": "relu"}),
    "gated": ("GatedSAE", {"architecture": "gated", "normalize_activations": "layer_norm"}),
    "not normalized": ("StandardSAE", {"normalize_activations": False}),
    "normalization null": ("StandardSAE", {"normalize_activations": None}),
    "version 5": ("StandardSAE", {"sae_lens_version": "5.11.0", "hook_name": "blocks.1.hook_resid_pre"}),
}


@pytest.mark.parametrize("case", OLD)
def test_flat_keys_of_older_versions(sae_lens: Any, case: str, hook_output: Tensor, tmp_path: Path) -> None:
    kind, changes = OLD[case]
    source = made(sae_lens, kind, **({"k": 7} if kind == "TopKSAE" else {}))
    save_file(source.state_dict(), tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(flat_config(**changes)))
    own, theirs = load_sae(tmp_path), sae_lens.SAE.load_from_disk(tmp_path)
    assert_agree(own, theirs, hook_output)
    assert own.record.hook == theirs.cfg.metadata.hook_name == "blocks.1.hook_resid_pre"
    assert (own.record.model_name, own.record.prepend_bos, own.record.context_size) == ("gpt2-small", True, 128)


REFUSED: dict[str, Callable[[Any], Any]] = {
    "abstopk": lambda own: own.AbsTopKSAE(own.AbsTopKSAEConfig(d_in=D_IN, d_sae=D_SAE)),
    "matching_pursuit": lambda own: own.MatchingPursuitSAE(own.MatchingPursuitSAEConfig(d_in=D_IN, d_sae=D_SAE)),
    "temporal": lambda own: own.TemporalSAE(own.TemporalSAEConfig(d_in=D_IN, d_sae=128, n_heads=2)),
}


@pytest.mark.parametrize("architecture", REFUSED)
def test_what_one_product_cannot_express_is_refused_by_name(sae_lens: Any, architecture: str, tmp_path: Path) -> None:
    REFUSED[architecture](sae_lens).save_model(tmp_path)
    with pytest.raises(CheckpointError, match=f"architecture '{architecture}' is not supported \\(it"):
        load_sae(tmp_path)


def test_every_architecture_of_sae_lens_is_read_or_refused(sae_lens: Any) -> None:
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    from extraction_assets.engine.saes.formats import saelens

    known = {*saelens._KINDS, *saelens._REFUSED}
    assert {*SAE_CLASS_REGISTRY, *SAE_TRAINING_CLASS_REGISTRY} == known


def test_whitened_activations_are_refused_by_name(sae_lens: Any, tmp_path: Path) -> None:
    made(sae_lens, "StandardSAE", normalize_activations="covariance_whitening").save_model(tmp_path)
    with pytest.raises(CheckpointError, match="normalize_activations = 'covariance_whitening' is not supported"):
        load_sae(tmp_path)
