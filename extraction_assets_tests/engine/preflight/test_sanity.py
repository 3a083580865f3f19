"""What one batch shows of an SAE, and what is said where it makes no sense of it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from extraction_assets.engine.preflight import sanity
from extraction_assets.engine.preflight.sanity import (
    SaeSanity,
    SanityError,
    SanityLimits,
    bos_share,
    judge,
    measure_sae,
)
from extraction_assets.engine.saes.formats import SAEWeights
from extraction_assets.engine.saes.sae import SAE
from extraction_assets.engine.shapes import TopKTable

LIMITS = SanityLimits(minimum_variance_explained=0.5, maximum_l0=10, maximum_bos_share=0.5)


def _sae() -> SAE:
    """Two features for two directions, and one that never fires."""
    w_enc = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    return SAE(SAEWeights("standard", w_enc, torch.tensor([0.0, 0.0, -1.0]), w_enc.t().clone(), torch.zeros(2)))


def _batch() -> Tensor:
    """Two samples of three tokens; the strongest token of feature 0 is a first one, those of feature 1 are not."""
    first = [[9.0, 1.0], [2.0, 3.0], [1.0, 0.0]]
    second = [[1.0, 0.0], [0.0, 4.0], [7.0, 7.0]]
    return torch.tensor([first, second])


def _first() -> Tensor:
    return torch.tensor([[True, False, False]] * 2)


def test_a_batch_is_measured_at_its_counted_positions() -> None:
    counted = torch.tensor([[True, True, True], [True, True, False]])
    found = measure_sae(_sae(), _batch(), counted, _first())
    assert found.tokens == 5
    assert found.variance_explained == pytest.approx(1.0)
    assert found.mean_l0 == pytest.approx((2 + 2 + 1 + 1 + 1) / 5)
    assert (found.features_firing, found.latent_dim) == (2, 3)
    assert found.dead_fraction == pytest.approx(1 / 3)
    # (feature 0, sample 0) at 0, (feature 0, sample 1) at 0, (1, 0) at 1, (1, 1) at 1
    assert found.bos_share == pytest.approx(2 / 4)
    assert found.bos_positions == pytest.approx(2 / 5)
    norms = [math.hypot(9, 1), math.hypot(2, 3), 1, 1, 4]
    assert found.mean_norm == pytest.approx(sum(norms) / 5)


@pytest.mark.parametrize("numbers_at_once", [1, 20])
def test_samples_are_measured_the_same_however_many_at_once(
    monkeypatch: pytest.MonkeyPatch, numbers_at_once: int
) -> None:
    """One at a time, or three and then the rest."""
    draw = torch.Generator().manual_seed(3)
    activations = torch.randn(7, 3, 2, generator=draw) * 4
    counted = torch.rand(7, 3, generator=draw) < 0.8
    activations[5, 0] = float("nan")
    counted[5, 0] = True
    marked = _first()[:1].expand(7, 3)
    found = measure_sae(_sae(), activations, counted, marked, first_sample=40)
    assert found.first_not_finite == (45, 0)
    monkeypatch.setattr(sanity, "_NUMBERS_AT_ONCE", numbers_at_once)
    parts = measure_sae(_sae(), activations, counted, marked, first_sample=40)
    assert parts.variance_explained == pytest.approx(found.variance_explained, rel=1e-12)
    assert parts._replace(variance_explained=0) == found._replace(variance_explained=0)


def test_tokens_that_are_not_finite_are_counted_and_left_out() -> None:
    broken, counted = _batch(), torch.ones(2, 3, dtype=torch.bool)
    broken[1, 2] = torch.tensor([float("nan"), float("inf")])
    counted_less = counted.clone()
    counted_less[1, 2] = False
    without = measure_sae(_sae(), _batch(), counted_less, _first())
    assert measure_sae(_sae(), broken, counted, _first()) == without._replace(not_finite=1, first_not_finite=(1, 2))


def test_a_target_that_is_not_finite_is_counted_too() -> None:
    target, counted = _batch(), torch.ones(2, 3, dtype=torch.bool)
    target[0, 1, 0] = float("inf")
    found = measure_sae(_sae(), _batch(), counted, _first(), target=target)
    assert (found.tokens, found.not_finite) == (5, 1)
    assert not math.isnan(found.variance_explained)


def test_a_batch_without_a_counted_position_is_an_error() -> None:
    found = measure_sae(_sae(), _batch(), torch.zeros(2, 3, dtype=torch.bool), _first())
    assert found.tokens == 0
    (finding,) = judge("s", "h", found, LIMITS)
    assert (finding.severity, finding.raises) == ("error", SanityError)
    assert "no token of one batch counts, so there is nothing to judge it by" in finding.message


@pytest.mark.parametrize("spoiled", [slice(None), slice(1)])
def test_activations_that_are_not_finite_are_an_error(spoiled: slice) -> None:
    """All of them, as of a float16 model that overflows, or some."""
    activations, counted = _batch(), torch.ones(2, 3, dtype=torch.bool)
    activations[spoiled] = float("nan")
    found = measure_sae(_sae(), activations, counted, _first(), first_sample=40)
    (finding,) = judge("s", "h", found, LIMITS)
    number = 6 if spoiled == slice(None) else 3
    assert finding.severity == "error"
    assert finding.message.startswith("hook 'h', which SAE 's' reads, ")
    assert f"holds a NaN or an infinity in sample 40, position 0 ({number} of 6 tokens of one batch)" in finding.message
    assert "set language_model.dtype" in finding.message


def test_activations_that_do_not_vary_are_an_error() -> None:
    found = measure_sae(_sae(), torch.ones(2, 3, 2), torch.ones(2, 3, dtype=torch.bool), _first())
    (finding,) = judge("s", "h", found, LIMITS)
    assert finding.severity == "error"
    assert "the activations of 6 token(s) of one batch do not vary" in finding.message


def test_few_tokens_are_a_warning() -> None:
    (finding,) = judge("s", "h", _found(tokens=31), LIMITS)
    assert finding.severity == "warning"
    assert "was tried on 31 tokens of one batch only" in finding.message
    assert judge("s", "h", _found(tokens=32), LIMITS) == []


def test_next_to_no_tokens_at_the_end_of_a_corpus_are_a_warning() -> None:
    found = measure_sae(_sae(), _batch(), torch.zeros(2, 3, dtype=torch.bool), _first())
    (finding,) = judge("s", "h", found, LIMITS, is_later_chunk=True)
    assert finding.severity == "warning"
    assert "no token of one batch counts" in finding.message


def test_activations_that_do_not_vary_are_an_error_in_a_later_chunk_too_where_they_are_many() -> None:
    found = _found(tokens=32, variance_explained=math.nan)
    assert [one.severity for one in judge("s", "h", found, LIMITS, is_later_chunk=True)] == ["error"]


def test_activations_that_are_not_finite_are_an_error_in_a_later_chunk_too() -> None:
    found = _found(tokens=0, not_finite=1, first_not_finite=(40, 0))
    assert [one.severity for one in judge("s", "h", found, LIMITS, is_later_chunk=True)] == ["error"]


def test_what_a_chunks_checks_only_mark_stops_no_chunk_of_few_tokens() -> None:
    broken = _found(tokens=31, mean_l0=0.0, bos_share=0.8)
    assert {one.severity for one in judge("s", "h", broken, LIMITS, is_later_chunk=True)} == {"warning"}
    assert "error" in {one.severity for one in judge("s", "h", broken, LIMITS)}


def test_bos_share_reads_the_strongest_position_of_absolute_samples() -> None:
    table = TopKTable(
        torch.tensor([0, 0, 4]),
        torch.tensor([100, 101, 100]),
        torch.tensor([3.0, 2.0, 5.0]),
        torch.tensor([0, 2, 3, 4]),
        torch.tensor([0, 2, 1, 2]),  # strongest: 0, 1, 2
        torch.tensor([3.0, 1.0, 2.0, 5.0]),
    )
    marked = torch.tensor([[True, False, True], [True, False, False]])
    assert bos_share(table, marked, 100) == pytest.approx(2 / 3)


def _found(**changes: Any) -> SaeSanity:
    good = SaeSanity(
        tokens=4000,
        variance_explained=0.9,
        mean_l0=5.0,
        features_firing=900,
        latent_dim=1000,
        bos_share=0.02,
        bos_positions=0.01,
        mean_norm=412.0,
        d_in=768,
    )
    return good._replace(**changes)


def test_nothing_is_said_of_a_good_sae() -> None:
    assert judge("s", "h", _found(), LIMITS) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"variance_explained": 0.12},
            ["explains 0.12", "at least 0.5", "412", "27.7", "the cause", "saes.s.minimum_v"],
        ),
        ({"mean_l0": 0.0}, ["has no feature that fires", "4,000 tokens", "saes.s.maximum_l0"]),
        ({"mean_l0": 600.0}, ["has 600.0 of its 1,000 features firing", "between 0 and 10", "saes.s.maximum_l0"]),
        ({"bos_share": 0.8}, ["80%", "1.0% of the positions", "exclude_first_positions to 1", "saes.s.maximum_bos_s"]),
    ],
    ids=str,
)
def test_what_breaks_a_limit_is_an_error_with_its_numbers(changes: dict[str, Any], said: list[str]) -> None:
    (finding,) = judge("s", "layers.3", _found(**changes), LIMITS, cause="the cause?")
    assert (finding.severity, finding.raises) == ("error", SanityError)
    assert finding.message.startswith("SAE 's' at 'layers.3'")
    for part in said:
        assert part in finding.message


def test_mostly_silent_features_are_a_warning_only_where_the_batch_gave_them_a_chance() -> None:
    (finding,) = judge("s", "h", _found(features_firing=50), LIMITS)
    assert finding.severity == "warning"
    assert "95.0% of its 1,000 features fire nowhere" in finding.message
    assert judge("s", "h", _found(features_firing=50, tokens=1000), LIMITS) == []
