"""A model and an SAE that do not belong together are found before any work starts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from extraction_assets.engine.findings import Finding, refuse
from extraction_assets.engine.models.language_model import load_language_model, vocabulary_size
from extraction_assets.engine.preflight.compatibility import (
    CheckpointError,
    CorpusError,
    HookError,
    check_combination,
    examine_combination,
    examine_vocabulary,
    refuse_unknown_tokens,
)
from extraction_assets.engine.shapes import Samples
from extraction_assets.settings import ResolvedSae
from extraction_assets_tests import tiny
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.saes.formats.published_layouts import write_gemma_scope_2


def sae(folder: Path, hook: str, **options: str) -> ResolvedSae:
    return ResolvedSae(path=str(folder), hook=hook, **options)


def test_a_good_combination_gives_the_saes_by_name(llama: str, sae_folders: dict[str, Path]) -> None:
    saes = {name: sae(folder, f"layers.{i % 2}") for i, (name, folder) in enumerate(sae_folders.items())}
    found = examine_combination(local(llama), saes, 64)
    assert {name: one.architecture for name, one in found.saes.items()} == {name: name for name in sae_folders}


def test_an_sae_of_another_width_is_named_with_both_widths(llama: str, tmp_path: Path) -> None:
    wide = tiny.make_sae(tmp_path / "wide", d_in=24)
    with pytest.raises(CheckpointError, match=r"'wide' .* d_in = 24, but hook 'layers.0' of .* gives 16"):
        check_combination(local(llama), {"wide": sae(wide, "layers.0")}, 64)


def test_files_of_another_width_than_a_published_name_says_are_a_warning(llama: str, tmp_path: Path) -> None:
    names = {"release": "gemma-scope-2-270m-it-res", "sae_id": "layer_5_width_65k_l0_medium"}
    write_gemma_scope_2(tmp_path, "mine", config=False)
    found = examine_combination(local(llama), {"mine": sae(tmp_path / "mine", "layers.1", **names)}, 64).findings
    said = "SAE 'mine': by its name gemma-scope-2-270m-it-res/layer_5_width_65k_l0_medium has 65,536 features, its"
    assert [said in one.message for one in found if one.severity == "warning"].count(True) == 1


def test_an_unknown_hook_is_found(llama: str, sae_folders: dict[str, Path]) -> None:
    with pytest.raises(HookError, match=r"no module 'layers\.7'"):
        check_combination(local(llama), {"relu": sae(sae_folders["standard"], "layers.7")}, 64)


def test_samples_longer_than_the_model_was_made_for_are_refused(llama: str, sae_folders: dict[str, Path]) -> None:
    with pytest.raises(CorpusError, match=r"max_length is 65, but .* takes at most 64 positions"):
        check_combination(local(llama), {"relu": sae(sae_folders["standard"], "layers.0")}, 65)


def test_every_mismatch_is_a_finding(llama: str, sae_folders: dict[str, Path], tmp_path: Path) -> None:
    saes = {
        "wide": sae(tiny.make_sae(tmp_path / "wide", d_in=24), "layers.0"),
        "right": sae(sae_folders["topk"], "layers.1"),
        "narrow": sae(tiny.make_sae(tmp_path / "narrow", d_in=8), "layers.2"),
    }
    found = examine_combination(local(llama), saes, 65)
    assert [finding.severity for finding in found.findings] == ["error"] * 3
    for finding, part in zip(found.findings, ("max_length is 65", "SAE 'wide'", "SAE 'narrow'"), strict=True):
        assert part in finding.message
    assert found.widths == {"layers.0": 16, "layers.1": 16, "layers.2": 16}
    assert list(found.saes) == ["wide", "right", "narrow"]


@pytest.fixture(scope="module")
def tokenizer(llama: str) -> Any:
    return AutoTokenizer.from_pretrained(llama)


def test_the_models_own_tokenizer_fits_and_so_does_a_padded_vocabulary(llama: str, tokenizer: Any) -> None:
    rows = vocabulary_size(local(llama))
    assert rows == len(tokenizer)
    assert examine_vocabulary(tokenizer, rows, llama) == []
    assert examine_vocabulary(tokenizer, rows + 64, llama) == []
    assert examine_vocabulary(tokenizer, None, llama) == []


def test_a_tokenizer_of_a_larger_vocabulary_is_an_error_with_both_numbers(llama: str, tokenizer: Any) -> None:
    (finding,) = examine_vocabulary(tokenizer, len(tokenizer) - 1, llama)
    assert finding.severity == "error"
    assert f"token ids up to {len(tokenizer) - 1}, but the model has embeddings of {len(tokenizer) - 1}" in (
        finding.message
    )


def test_an_added_token_that_no_text_may_hold_is_a_warning(llama: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llama)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<image_soft_token>"], special_tokens=True)
    (finding,) = examine_vocabulary(tokenizer, rows, llama)
    assert finding.severity == "warning"
    assert "1 added tokens" in finding.message
    assert "<image_soft_token>" in finding.message


def test_a_token_without_an_embedding_is_named_with_its_place(llama: str) -> None:
    model = load_language_model(local(llama), ["layers.0"])
    rows = model.module.config.vocab_size
    ids = torch.tensor([[1, 2, rows - 1], [3, rows, 7]])
    mask = torch.ones_like(ids).bool()
    with pytest.raises(CorpusError, match=rf"sample 41 has token id {rows} at position 1.* 0 to {rows - 1}"):
        refuse_unknown_tokens(Samples(ids, mask, mask, 40), model)
    mask[1, 1] = False  # padding may hold anything
    refuse_unknown_tokens(Samples(ids, mask, mask, 40), model)


def test_the_first_error_is_raised_as_what_it_is() -> None:
    refuse([Finding("warning", "odd")])
    with pytest.raises(CorpusError, match="second"):
        refuse([Finding("warning", "first"), Finding("error", "second", CorpusError), Finding("error", "third")])
