"""sparsify as EleutherAI publishes it, beside SAELens's loader, where that follows sparsify."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.saes.formats import SAEWeights, read_checkpoint
from extraction_assets.engine.saes.published import PublishedSae
from extraction_assets_tests.engine.saes.formats.published_layouts import (
    D_IN,
    D_SAE,
    assert_same_sae,
    read_by_sae_lens,
    write_sparsify,
)

SAE = PublishedSae("", "", "EleutherAI/sae-pythia-70m-32k", "layers.3", "sparsify", "pythia-70m")


def turned(state: dict[str, Tensor]) -> None:
    """SAELens's loader turns W_dec, which sparsify stores as SAELens's class needs it, [F, D]."""
    assert state["W_dec"].shape == (D_IN, D_SAE)
    state["W_dec"] = state["W_dec"].T.contiguous()


def both(monkeypatch: pytest.MonkeyPatch, root: Path, *, normalize_decoder: bool) -> tuple[SAEWeights, Any]:
    write_sparsify(root, SAE.path, normalize_decoder=normalize_decoder)
    return read_checkpoint(root / SAE.path), read_by_sae_lens(monkeypatch, root, SAE, repair=turned)


def test_sparsify_encodes_and_decodes_as_sae_lens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_same_sae(*both(monkeypatch, tmp_path, normalize_decoder=False))


def test_sae_lens_does_not_subtract_the_bias_of_normalized_decoders_though_sparsify_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``SparseCoder.encode`` subtracts b_dec unless it is a transcoder; the decoder's norms change nothing."""
    ours, theirs = both(monkeypatch, tmp_path, normalize_decoder=True)
    assert (ours.apply_b_dec_to_input, theirs.cfg.apply_b_dec_to_input) == (True, False)
    theirs.b_enc.data -= theirs.b_dec.data @ theirs.W_enc.data
    assert_same_sae(ours, theirs)
    assert torch.equal(ours.w_dec, theirs.W_dec)
