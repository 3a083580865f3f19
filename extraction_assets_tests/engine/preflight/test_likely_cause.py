"""Why an SAE explains too little is found by trying what may be wrong."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from extraction_assets.engine.models.language_model import load_language_model
from extraction_assets.engine.preflight.likely_cause import (
    Tried,
    better_hook,
    enough_samples,
    likely_cause,
    same_hook_elsewhere,
)
from extraction_assets.engine.saes.formats import SAEWeights
from extraction_assets.engine.saes.sae import SAE
from extraction_assets_tests.engine.checkpoints import local

WIDTH, TOKENS = 16, 24
COUNTED = torch.ones(4, TOKENS, dtype=torch.bool)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _trained_on() -> Tensor:
    """Activations [4, T, D] of mean 0 and standard deviation 1 at every token."""
    x = _random(4, TOKENS, WIDTH)
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)


def _sae(*, limit: float = 0.3, blind: bool = False) -> SAE:
    """An SAE that explains ``_trained_on`` almost perfectly: a rotation and its opposite, no value below ``limit``;
    ``blind`` to the mean over the width, of which it gives back nothing."""
    ones = torch.full((WIDTH, 1), WIDTH**-0.5)
    rotation = torch.linalg.qr(torch.cat([ones, _random(WIDTH, WIDTH - 1, seed=1)], dim=1)).Q[:, int(blind) :]
    w_enc = torch.cat([rotation, -rotation], dim=1)
    zeros, threshold = torch.zeros(w_enc.shape[1]), torch.full((w_enc.shape[1],), limit)
    w_dec, b_dec = w_enc.t().clone(), torch.zeros(WIDTH)
    return SAE(SAEWeights("jumprelu", w_enc, zeros, w_dec, b_dec, extra={"threshold": threshold}))


def _cause(sae: SAE, outputs: Tensor | dict[str, Tensor], minimum: float = 0.9) -> str:
    by_hook = outputs if isinstance(outputs, dict) else {"layers.3": outputs}
    return likely_cause(Tried(sae, "layers.3", None, by_hook, COUNTED), minimum)


def _explained(cause: str) -> float:
    found = re.search(r"explains (-?[0-9.]+)", cause)
    assert found
    return float(found[1])


def test_a_missing_layer_norm_is_named() -> None:
    scale = 10.0 ** (_random(4, TOKENS, 1, seed=2) - 4)
    cause = _cause(_sae(blind=True), _trained_on() * scale + _random(4, TOKENS, 1, seed=3))
    assert cause.startswith("With layer_norm of its input it explains 0.9")
    assert "normalize_activations" in cause


def test_a_missing_rescale_of_every_token_is_named() -> None:
    cause = _cause(_sae(), _trained_on() * 10.0 ** (_random(4, TOKENS, 1, seed=2) - 4))
    assert "constant_norm_rescale or layer_norm of its input" in cause  # the same for tokens of mean 0


def test_a_missing_constant_scale_is_named() -> None:
    assert cause_of_scale(100, _sae()).startswith("With expected_average_only_in")


def test_a_scale_that_no_normalization_gives_is_named_with_its_size() -> None:
    """An SAE that was trained on activations 16 times as large as sqrt(d_in)."""
    cause = cause_of_scale(1, _sae(limit=0.3 * 16))
    assert cause.startswith("With its input multiplied by ")
    assert "multiplied by 16" in cause


def cause_of_scale(divisor: float, sae: SAE) -> str:
    cause = _cause(sae, _trained_on() / divisor)
    assert _explained(cause) > 0.9
    return cause


def test_missing_centering_is_named_and_not_a_normalization_that_centers_too() -> None:
    cause = _cause(_sae(blind=True), _trained_on() + 30 * _random(4, TOKENS, 1, seed=4))
    assert "mean over the width subtracted" in cause
    assert "center_writing_weights" in cause


@pytest.mark.parametrize("applied", [True, False])
def test_b_dec_handled_the_wrong_way_is_named(applied: bool) -> None:
    """x = y + b_dec: right is apply_b_dec_to_input true. For false the encoder's bias makes up for it."""
    b_dec = 5 * _random(WIDTH, seed=7)
    right = SAEWeights(
        "standard",
        torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)], dim=1),
        torch.zeros(2 * WIDTH) if applied else torch.cat([-b_dec, b_dec]),
        torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)]),
        b_dec,
        apply_b_dec_to_input=not applied,
    )
    cause = _cause(SAE(right), _trained_on() + b_dec)
    assert cause.startswith(f"With apply_b_dec_to_input {str(applied).lower()} it explains 1.00")


def test_the_right_hook_is_named() -> None:
    where_it_is_blind = _random(4, TOKENS, 1, seed=9).expand(4, TOKENS, WIDTH).clone()
    outputs = {"wide": _random(4, TOKENS, 32), "layers.3": where_it_is_blind, "layers.4": _trained_on()}
    cause = _cause(_sae(blind=True, limit=0.0), outputs)
    assert cause == "At hook 'layers.4' it explains 1.00: is that where it belongs?"


def test_a_mean_that_is_only_put_back_explains_nothing() -> None:
    """All variance lies in the mean over the width, of which the SAE knows nothing."""
    mean = 10 * _random(4, TOKENS, 1, seed=9)
    cause = _cause(_sae(blind=True, limit=5.0), mean + 0.1 * _random(4, TOKENS, WIDTH, seed=10), minimum=0.9)
    assert "layer_norm" not in cause


def test_where_nothing_helps_that_is_said() -> None:
    rotation = torch.linalg.qr(_random(WIDTH, WIDTH, seed=1)).Q
    weights = SAEWeights(
        "standard", rotation, torch.zeros(WIDTH), -rotation.t().clone(), torch.zeros(WIDTH)
    )  # gives back the opposite of what it reads
    assert "is it an SAE of this model?" in _cause(SAE(weights), _trained_on())


def test_a_hook_where_far_less_stays_unexplained_is_named() -> None:
    """An SAE that knows 15 of 16 directions, at a layer that lies in them, and at one before that does not."""
    here, there = _trained_on() + _random(4, TOKENS, 1, seed=9) * 0.5, _trained_on()
    better = better_hook(
        Tried(_sae(blind=True, limit=0.0), "layers.3", None, {"layers.3": here, "layers.4": there}, COUNTED)
    )
    assert re.fullmatch(
        r"explains 0\.[78]\d\d of the variance of some samples, but at hook 'layers\.4' it explains 1\.000: is .*",
        better,
    )


def test_a_hook_that_is_a_little_better_is_not_named() -> None:
    here, there = (_trained_on() + _random(4, TOKENS, 1, seed=9) * scale for scale in (0.5, 0.45))
    outputs = {"layers.3": here, "layers.4": there, "wide": _random(4, TOKENS, 32)}
    assert better_hook(Tried(_sae(blind=True, limit=0.0), "layers.3", None, outputs, COUNTED)) == ""


def test_a_later_layer_that_did_not_load_is_not_looked_at(llama: str, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    kept = {key: own for key, own in load_file(file).items() if key != "layers.2.mlp.up_proj.weight"}
    save_file({**kept, "lm_head.weight": torch.ones(2)}, file, {"format": "pt"})
    model = load_language_model(local(tmp_path / "model"), ["layers.0"])
    assert same_hook_elsewhere(model, "layers.0") == ["layers.1"]
    assert same_hook_elsewhere(model, "layers.0.self_attn") == ["layers.1.self_attn", "layers.2.self_attn"]
    assert same_hook_elsewhere(model, "layers.0.mlp") == ["layers.1.mlp"]


def test_a_later_layer_that_is_not_finite_is_not_looked_at(llama: str, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    model = load_language_model(local(tmp_path / "model"), ["layers.0"])
    assert same_hook_elsewhere(model, "layers.0") == []


def test_the_same_hook_of_near_layers(llama: str) -> None:
    model = load_language_model(local(llama), ["model.layers.0"])
    assert same_hook_elsewhere(model, "model.layers.0", 1) == ["model.layers.1"]


def test_the_same_hook_of_all_other_layers(llama: str) -> None:
    model = load_language_model(local(llama), ["model.layers.1"])
    assert same_hook_elsewhere(model, "model.layers.1") == ["model.layers.0", "model.layers.2"]
    assert same_hook_elsewhere(model, "layers.0.mlp") == ["layers.1.mlp", "layers.2.mlp"]
    assert same_hook_elsewhere(model, "embed_tokens") == []


def test_reading_more_hooks_for_a_while(llama: str) -> None:
    ids = torch.tensor([[1, 5, 9, 2]])
    mask = torch.ones_like(ids).bool()
    model = load_language_model(local(llama), ["layers.1"])
    before = model.activations(ids, mask)
    with model.also_reading(["layers.0", "layers.2", "layers.1"]):
        more = model.activations(ids, mask)
    assert set(more) == {"layers.0", "layers.1", "layers.2"}
    assert torch.equal(
        more["layers.2"], load_language_model(local(llama), ["layers.2"]).activations(ids, mask)["layers.2"]
    )
    after = model.activations(ids, mask)
    assert list(after) == list(before) == ["layers.1"]
    assert torch.equal(after["layers.1"], before["layers.1"])


def test_few_samples_are_enough() -> None:
    assert [enough_samples(length) for length in (1, 128, 512, 8192)] == [512, 4, 1, 1]
