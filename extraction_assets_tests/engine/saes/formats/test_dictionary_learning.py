"""dictionary_learning as SAEBench and others publish it, beside SAELens's loader of it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from extraction_assets.engine.saes.formats import read_checkpoint_record
from extraction_assets.engine.saes.published import published_sae
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    assert_same_sae,
    read_by_name,
    read_by_sae_lens,
    write_dictionary_learning,
)

GEMMA = "sae_bench_gemma-2-2b"
PYTHIA = "sae_bench_pythia70m_sweep"
NAMES = {
    f"{GEMMA}_topk_width-2pow12_date-1109": ("blocks.12.hook_resid_post__trainer_0", "AutoEncoderTopK"),
    f"{PYTHIA}_topk_ctx128_0730": ("blocks.3.hook_resid_post__trainer_0", "AutoEncoderTopK of 2024"),
    f"{PYTHIA}_gated_ctx128_0730": ("blocks.4.hook_resid_post__trainer_0", "GatedAutoEncoder"),
    "saebench_gemma-2-2b_width-2pow14_date-0107": ("blocks.12.hook_resid_post__trainer_0", "MatryoshkaBatchTopKSAE"),
    "saebench_gemma-2-2b_width-2pow12_date-0108": ("blocks.12.hook_resid_post__trainer_0", "BatchTopKSAE"),
    "saebench_gemma-2-2b_width-2pow16_date-0107": ("blocks.12.hook_resid_post__trainer_0", "JumpReluAutoEncoder"),
    "llama-3.1-8b-instruct-andyrdt": ("resid_post_layer_3_trainer_1", "BatchTopKSAE"),
    "qwen2.5-7b-instruct-andyrdt": ("resid_post_layer_7_trainer_1", "BatchTopKSAE"),
    "gpt-oss-20b-andyrdt": ("resid_post_layer_3_trainer_0", "BatchTopKSAE"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("release", NAMES)
def test_dictionary_learning_encodes_and_decodes_as_sae_lens(
    release: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae_id, dict_class = NAMES[release]
    sae = published_sae(release, sae_id)
    write_dictionary_learning(tmp_path, sae.path, dict_class, dtype)
    ours, theirs = read_by_name(tmp_path, sae), read_by_sae_lens(monkeypatch, tmp_path, sae)
    assert_same_sae(ours, theirs)
    known = theirs.cfg.metadata
    assert (ours.record.hook, ours.record.context_size) == (known.hook_name, known.context_size)


STANDARD = {
    f"{GEMMA}_vanilla_width-2pow12_date-1109": "blocks.12.hook_resid_post__trainer_0_step_0",
    f"{PYTHIA}_standard_ctx128_0712": "blocks.3.hook_resid_post__trainer_10",
    f"{PYTHIA}_panneal_ctx128_0730": "blocks.4.hook_resid_post__trainer_16",
}


@pytest.mark.parametrize("release", STANDARD)
def test_an_autoencoder_is_that_of_sae_lens_with_decoder_vectors_of_norm_1(
    release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As dictionary_learning's own from_pretrained gives it; sae-lens's features are those over the norms."""
    sae = published_sae(release, STANDARD[release])
    write_dictionary_learning(tmp_path, sae.path, "AutoEncoder")
    ours, theirs = read_by_name(tmp_path, sae), read_by_sae_lens(monkeypatch, tmp_path, sae)
    assert ours.record.hook == theirs.cfg.metadata.hook_name
    norms = theirs.W_dec.detach().norm(dim=1)
    torch.testing.assert_close(ours.b_enc, theirs.b_enc.detach() * norms)
    theirs.fold_W_dec_norm()
    assert_same_sae(ours, theirs)


@pytest.mark.parametrize(
    ("inside", "trainer", "hook"),
    [
        ("resid_post_layer_5_checkpoints/trainer_5_step_9765", {}, "blocks.5.hook_resid_post"),
        ("resid_post_layer_5_checkpoints/trainer_5_step_9765", {"submodule_name": None}, "blocks.5.hook_resid_post"),
        ("mine", {"submodule_name": None, "layer": 9}, "blocks.9.hook_resid_post"),
        ("mine", {"submodule_name": "resid_post_layer_7", "layer": None}, "blocks.7.hook_resid_post"),
        ("mine", {"submodule_name": "resid_post_layer_7", "layer": 6}, None),
        ("resid_post_layer_5/trainer_0", {"submodule_name": None, "layer": 6}, None),
        ("mine", {"submodule_name": "mlp_layer_7", "layer": 7}, None),
        ("mine", {"submodule_name": None, "layer": None}, None),
        ("mine", {"submodule_name": None, "layer": "last"}, None),
    ],
)
def test_the_hook_is_that_of_the_trainers_layer_unless_a_name_contradicts(
    inside: str, trainer: dict[str, Any], hook: str | None, tmp_path: Path
) -> None:
    write_dictionary_learning(tmp_path, inside, "BatchTopKSAE", **trainer)
    assert read_checkpoint_record(tmp_path / inside).hook == hook


def test_norms_of_an_autoencoder_are_summed_in_the_order_of_its_file(tmp_path: Path) -> None:
    """Features that were stored before the decoder was turned while it is read have these last bits."""
    sae = published_sae(f"{GEMMA}_vanilla_width-2pow12_date-1109", "blocks.12.hook_resid_post__trainer_0_step_0")
    write_dictionary_learning(tmp_path, sae.path, "AutoEncoder")
    stored, ours = torch.load(tmp_path / sae.path / "ae.pt", weights_only=True), read_by_name(tmp_path, sae)
    rows = stored["decoder.weight"].t()
    norms = rows.norm(dim=1)
    assert not torch.equal(rows.contiguous().norm(dim=1), norms)
    assert torch.equal(ours.b_enc, stored["encoder.bias"] * norms)
    assert ours.w_dec is not None
    assert torch.equal(ours.w_dec, rows / norms[:, None])
