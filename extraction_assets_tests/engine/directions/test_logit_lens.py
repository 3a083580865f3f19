"""The logit lens by hand, and against the slow and obvious way."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from extraction_assets.engine.directions import products
from extraction_assets.engine.directions.final_norm import FinalNorm
from extraction_assets.engine.directions.logit_lens import HISTOGRAM_BINS, LENS_TOKENS, LogitLens, logit_lens
from extraction_assets.engine.directions.unembedding import Unembedding, read_unembedding
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.directions.models import MODELS, lens_by_the_model, save_with_head
from extraction_assets_tests.engine.directions.oracle import logits_of, make_unembedding
from extraction_assets_tests.engine.families import D_MODEL

F, V, D = 70, 400, 24


def decoder(seed: int = 5) -> torch.Tensor:
    return torch.randn(F, D, generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    """Gain (1, 2), a mean to subtract: the row (3, 1) is (1, -1), then (1, -2)."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    unembedding = Unembedding(weight, FinalNorm(torch.tensor([1.0, 2.0]), True, "weight", False), "")
    found = logit_lens(torch.tensor([[3.0, 1.0]]), unembedding)
    assert found.top_logits.tolist() == [[1.0, -1.0, -2.0, -2.0]]
    assert found.top_tokens.tolist() == [[0, 2, 1, 3]]
    assert found.bottom_logits.tolist() == [[-2.0, -2.0, -1.0, 1.0]]
    assert found.bottom_tokens.tolist() == [[1, 3, 2, 0]]
    assert (found.mean.item(), found.minimum.item(), found.maximum.item()) == (-1.0, -2.0, 1.0)
    assert found.std.item() == pytest.approx(1.5**0.5)  # of 2, 0, -1, -1: 6 / 4
    counts = found.histogram[0].tolist()
    assert (counts[0], counts[16], counts[-1], sum(counts)) == (2, 1, 1, 4)


@pytest.mark.parametrize("is_centred", [False, True])
def test_everything_is_that_of_all_logits(is_centred: bool) -> None:
    unembedding = make_unembedding(V, D, is_centred=is_centred)
    found, logits = logit_lens(decoder(), unembedding), logits_of(decoder(), unembedding)
    order = np.argsort(-logits, axis=1, kind="stable")
    assert np.array_equal(found.top_tokens, order[:, :LENS_TOKENS])
    assert np.array_equal(found.bottom_tokens, np.argsort(logits, axis=1, kind="stable")[:, :LENS_TOKENS])
    np.testing.assert_allclose(found.top_logits, np.take_along_axis(logits, order, 1)[:, :LENS_TOKENS], atol=2e-5)
    moments = (logits.mean(1), logits.std(1), logits.min(1), logits.max(1))
    for ours, theirs in zip((found.mean, found.std, found.minimum, found.maximum), moments, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_the_histogram_has_equal_bins_from_minimum_to_maximum() -> None:
    found, logits = logit_lens(decoder(), make_unembedding(V, D)), logits_of(decoder(), make_unembedding(V, D))
    assert found.histogram.sum(1).tolist() == [V] * F
    for counts, row in zip(found.histogram.numpy(), logits, strict=True):
        expected, _ = np.histogram(row, HISTOGRAM_BINS)
        assert np.abs(np.cumsum(counts - expected)).max() <= 1  # one at an edge, by its last bits


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    unembedding, updates = make_unembedding(V, D), list[int]()
    whole = logit_lens(decoder(), unembedding)
    monkeypatch.setattr(products, "rows_at_once", lambda *_: 16)
    parts = logit_lens(decoder(), unembedding, updates.append)
    assert updates == [16, 16, 16, 16, 6, 0]
    for name, one, other in zip(LogitLens._fields, whole, parts, strict=True):
        if name == "histogram":  # one at an edge, by its last bits
            assert int((one - other).abs().sum()) <= 2
        else:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_equal_tokens_are_in_the_order_of_their_ids() -> None:
    unembedding = make_unembedding(V, D)
    unembedding.weight[:] = unembedding.weight[0]
    found = logit_lens(decoder(), unembedding)
    assert found.top_tokens.tolist() == found.bottom_tokens.tolist() == [list(range(LENS_TOKENS))] * F


def test_zeros_of_both_signs_are_equal() -> None:
    weight = torch.tensor([[0.0, -0.0], [-0.0, 0.0], [0.0, 0.0]])
    found = logit_lens(torch.tensor([[1.0, -1.0]]), Unembedding(weight, FinalNorm(torch.ones(2), False, "", False), ""))
    assert found.top_tokens.tolist() == [[0, 1, 2]]
    assert not found.bottom_logits.signbit().any()
    assert (found.std.item(), found.histogram[0, 0].item()) == (0.0, 3)


def test_a_row_of_zeros_is_no_direction() -> None:
    rows, updates = decoder(), list[int]()
    rows[3] = 0
    found, whole = (
        logit_lens(rows, make_unembedding(V, D), updates.append),
        logit_lens(decoder(), make_unembedding(V, D)),
    )
    assert found.is_defined.tolist() == [number != 3 for number in range(F)]
    assert torch.equal(found.top_tokens[found.is_defined], whole.top_tokens[found.is_defined])
    assert sum(updates) == F
    assert not logit_lens(rows * 0, make_unembedding(V, D)).is_defined.any()


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "Gemma2ForCausalLM", "GPT2LMHeadModel", "GPTNeoXForCausalLM"])
def test_top_tokens_are_those_of_the_models_own_norm_and_head(name: str, tmp_path: Path) -> None:
    whole = save_with_head(tmp_path, name)
    rows = torch.randn(9, D_MODEL, generator=torch.Generator().manual_seed(2))
    found = logit_lens(rows, read_unembedding(local(tmp_path), f"{MODELS[name].blocks}.1"))
    logits = lens_by_the_model(whole, MODELS[name].norm, rows)
    expected = logits.topk(LENS_TOKENS)
    torch.testing.assert_close(found.top_logits.double(), expected.values, rtol=1e-3, atol=1e-3)
    assert (found.top_tokens == expected.indices).float().mean() > 0.9  # but for near ties


def test_it_is_what_transformer_lens_folds_into_the_unembedding(tmp_path: Path) -> None:
    """W_dec @ W_U of ``fold_layer_norm``: W_U is the head's transposed times the gain, and centred over the stream."""
    whole = save_with_head(tmp_path, "GPT2LMHeadModel")
    assert isinstance(whole, transformers.GPT2LMHeadModel)
    folded = whole.lm_head.weight.t() * whole.transformer.ln_f.weight[:, None]  # [D, V]
    folded = folded - folded.mean(0, keepdim=True)
    rows = torch.randn(9, D_MODEL)
    found = logit_lens(rows, read_unembedding(local(tmp_path), "transformer.h.1"))
    torch.testing.assert_close(found.top_logits, (rows @ folded).topk(LENS_TOKENS).values, rtol=1e-4, atol=1e-5)
