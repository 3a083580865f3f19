"""Tokens of outlier norm do not count, whatever stands beside them in a batch."""

from pathlib import Path

import pytest
import torch

from extraction_assets.engine.chunk_pass.context import NonFiniteError, PassSettings
from extraction_assets.engine.chunk_pass.forward import forward_pass, stored_activations
from extraction_assets.engine.chunk_pass.sae_pass import SaeTask
from extraction_assets.engine.models.language_model import LanguageModel, load_language_model
from extraction_assets.engine.saes.sae import load_sae
from extraction_assets.engine.selection.outliers import outlier_positions
from extraction_assets_tests.engine.build import assert_same
from extraction_assets_tests.engine.checkpoints import local
from extraction_assets_tests.engine.chunk_pass.build import (
    SAMPLES,
    assert_same_saes,
    features_of,
    run_pass,
)

MULTIPLE = 1.2
SETTINGS = PassSettings(batch_size=4, top_k=3, exclude_outlier_norms=MULTIPLE)


def norms(*rows: list[float]) -> torch.Tensor:
    """[n, T, 2] with these norms: 3-4-5 triangles, so that float32 has them exactly."""
    lengths = torch.tensor(rows)
    return torch.stack([lengths * 0.6, lengths * -0.8], dim=-1)


# The mask


def test_norms_above_the_multiple_of_the_median_are_outliers() -> None:
    found = outlier_positions(norms([5.0, 10.0, 15.0, 200.0, 10.0]), torch.ones(1, 5).bool(), 10)
    assert found.tolist() == [[False, False, False, True, False]]


def test_a_norm_at_the_threshold_is_none() -> None:
    found = outlier_positions(norms([5.0, 5.0, 10.0, 10.000001]), torch.ones(1, 4).bool(), 2)
    assert found.tolist() == [[False, False, False, True]]  # the lower one of the two in the middle, 5


def test_the_median_is_that_of_counted_positions_and_others_are_no_outliers() -> None:
    counted = torch.tensor([[False, False, True, True, True]])
    for others in (900.0, 0.01):
        found = outlier_positions(norms([others, others, 1.0, 1.0, 30.0]), counted, 10)
        assert found.tolist() == [[False, False, False, False, True]]


def test_each_sample_has_its_own_median() -> None:
    found = outlier_positions(norms([1.0, 1.0, 9.0], [9.0, 9.0, 1.0]), torch.ones(2, 3).bool(), 5)
    assert found.tolist() == [[False, False, True], [False, False, False]]


def test_a_sample_without_counted_positions_has_no_outliers() -> None:
    assert not outlier_positions(norms([1.0, 99.0]), torch.zeros(1, 2).bool(), 2).any()


def test_what_is_not_finite_is_left_to_be_refused() -> None:
    activations = norms([1.0, 1.0, 1.0, 1.0])
    activations[0, 1, 0], activations[0, 2, 1] = float("nan"), float("inf")
    assert not outlier_positions(activations, torch.ones(1, 4).bool(), 2).any()


def test_a_finite_activation_whose_norm_overflows_is_one() -> None:
    activations = norms([1.0, 1.0, 3e38])
    assert outlier_positions(activations, torch.ones(1, 3).bool(), 10).tolist() == [[False, False, True]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_neighbour_changes_the_mask(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    activations = torch.randn(9, 7, 100, generator=generator).to(dtype)
    counted = torch.rand(9, 7, generator=generator) > 0.2
    whole = outlier_positions(activations, counted, 1.05)
    alone = [outlier_positions(activations[row : row + 1], counted[row : row + 1], 1.05) for row in range(9)]
    assert whole.any()
    assert torch.equal(whole, torch.cat(alone))


# The pass


@pytest.fixture(scope="module")
def model(llama: str) -> LanguageModel:
    return load_language_model(local(llama), ["layers.0", "layers.1"])


@pytest.fixture(scope="module")
def tasks(sae_folders: dict[str, Path]) -> list[SaeTask]:
    hooks = {"standard": "layers.0", "jumprelu": "layers.1", "gated": "layers.0"}
    return [SaeTask(name, hook, load_sae(sae_folders[name])) for name, hook in hooks.items()]


def test_a_pass_counts_as_if_the_outliers_of_each_hook_had_been_excluded_before(
    model: LanguageModel, tasks: list[SaeTask]
) -> None:
    read = forward_pass(model, SAMPLES, 4)
    hooks = run_pass(read, tasks, settings=SETTINGS._replace(keep_activations=True, exclude_outlier_norms=None))
    found = run_pass(read, tasks, settings=SETTINGS)
    excluded = {}
    for task in tasks:
        outliers = outlier_positions(hooks.activations[task.hook], SAMPLES.counted, MULTIPLE)
        samples = SAMPLES._replace(counted=SAMPLES.counted & ~outliers)
        expected = run_pass(read, [task], samples=samples, settings=SETTINGS._replace(exclude_outlier_norms=None))
        assert_same(found.saes[task.name].table, expected.saes[task.name].table)
        assert_same(found.saes[task.name].statistics, expected.saes[task.name].statistics)
        assert found.saes[task.name].variance_explained == expected.saes[task.name].variance_explained
        excluded[task.hook] = outliers
    assert all(mask.any() for mask in excluded.values())
    assert not torch.equal(excluded["layers.0"], excluded["layers.1"])


@pytest.mark.parametrize("change", [{"keep_features": True}, {"vectorized": False}], ids=str)
def test_it_is_the_same_with_stored_features_and_in_the_legacy_loop(
    model: LanguageModel, tasks: list[SaeTask], change: dict[str, bool]
) -> None:
    read = forward_pass(model, SAMPLES, 4)
    one, other = (run_pass(read, tasks, settings=SETTINGS._replace(**own)) for own in ({}, change))
    for task in tasks:
        assert_same(one.saes[task.name].table, other.saes[task.name].table)
        assert_same(one.saes[task.name].statistics, other.saes[task.name].statistics)


def test_stored_features_are_those_of_every_token_all_the_same(model: LanguageModel, tasks: list[SaeTask]) -> None:
    read = forward_pass(model, SAMPLES, 4)
    keep = SETTINGS._replace(keep_features=True)
    one, other = (run_pass(read, tasks, settings=own) for own in (keep, keep._replace(exclude_outlier_norms=None)))
    for task in tasks:
        assert_same(features_of(one.saes[task.name]), features_of(other.saes[task.name]))


def test_the_batch_changes_no_bit(model: LanguageModel, tasks: list[SaeTask]) -> None:
    read = forward_pass(model, SAMPLES, 4)
    one, other = (run_pass(read, tasks, settings=SETTINGS, size=size) for size in (1, 23))
    assert_same_saes(one, other)


def test_stored_activations_give_the_same(model: LanguageModel, tasks: list[SaeTask]) -> None:
    one = run_pass(forward_pass(model, SAMPLES, 4), tasks, settings=SETTINGS._replace(keep_activations=True))
    other = run_pass(stored_activations(one.activations, torch.device("cpu")), tasks, settings=SETTINGS, size=7)
    assert_same_saes(one, other)


def test_an_infinity_is_refused_though_its_norm_is_far_out(model: LanguageModel, tasks: list[SaeTask]) -> None:
    kept = run_pass(forward_pass(model, SAMPLES, 4), tasks, settings=SETTINGS._replace(keep_activations=True))
    kept.activations["layers.1"][20, 3, 5] = float("inf")
    with pytest.raises(NonFiniteError, match="sample 1020, position 3"):
        run_pass(stored_activations(kept.activations, torch.device("cpu")), tasks, settings=SETTINGS)


def test_stored_features_alone_are_not_enough(model: LanguageModel, tasks: list[SaeTask]) -> None:
    stored = run_pass(forward_pass(model, SAMPLES, 4), tasks[:1], settings=SETTINGS._replace(keep_features=True))
    again = tasks[0]._replace(stored_features=stored.saes["standard"].features)
    with pytest.raises(ValueError, match="'standard': outlier norms need activations"):
        run_pass(None, [again], settings=SETTINGS)
