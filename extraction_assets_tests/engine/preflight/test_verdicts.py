"""What is asked of an SAE's results: the limits, and where there is nothing to judge by."""

import math

import pytest

from extraction_assets.engine.preflight.verdicts import bos_verdict, reconstruction_verdict, sparsity_verdict


@pytest.mark.parametrize(("explained", "passed"), [(0.5, True), (0.499, False), (-3.0, False), (1.0, True)])
def test_an_sae_explains_at_least_the_minimum(explained: float, passed: bool) -> None:
    assert reconstruction_verdict(explained, 0.5, 4000).passed is passed


def test_a_reconstruction_is_described_by_its_numbers() -> None:
    found = reconstruction_verdict(0.12345, 0.5, 4000)
    assert found.description == "explains 0.123 of the variance, at least 0.5 is required"
    assert found.metadata == {"variance_explained": 0.12345, "minimum": 0.5}


def test_of_an_sae_that_encodes_only_no_reconstruction_is_asked() -> None:
    found = reconstruction_verdict(None, 0.5, 4000)
    assert (found.passed, found.metadata) == (True, {})
    assert found.description.startswith("not applicable: this SAE encodes only")


@pytest.mark.parametrize(
    ("tokens", "passed", "description"),
    [
        (31, True, "nothing to judge by: 31 positions of the first samples count"),
        (
            32,
            False,
            "nothing to judge by: 32 positions of the first samples count, and the activations do not vary there",
        ),
    ],
)
def test_no_score_is_a_fault_where_many_tokens_count(tokens: int, passed: bool, description: str) -> None:
    assert reconstruction_verdict(math.nan, 0.5, tokens)[:2] == (passed, description)


@pytest.mark.parametrize(("l0", "sparse"), [(0.0, False), (0.1, True), (10.0, True), (10.1, False)])
def test_sparse_is_more_than_none_and_at_most_the_limit(l0: float, sparse: bool) -> None:
    assert sparsity_verdict(l0, 10, features_firing=3, latent_dim=4, tokens=100).passed is sparse


def test_without_a_counted_token_there_is_no_sparsity_to_judge() -> None:
    assert sparsity_verdict(0.0, 10, features_firing=0, latent_dim=4, tokens=0).passed


def test_sparsity_is_described_by_its_numbers() -> None:
    found = sparsity_verdict(2.5, 10, features_firing=3, latent_dim=4, tokens=100)
    assert found.description == (
        "2.5 features fire on a token on average, between 0 and 10 are expected; 3 of 4 fire somewhere in the chunk"
    )
    assert found.metadata == {"mean_l0": 2.5, "maximum_l0": 10, "features_firing": 3, "dead_fraction": 0.25}


@pytest.mark.parametrize(
    ("share", "positions", "passed"),
    [(0.9, 0.01, False), (0.4, 0.01, True), (0.9, 0.5, True), (1.0, 1.0, True)],
)
def test_first_tokens_dominate_where_they_are_more_than_their_share(
    share: float, positions: float, passed: bool
) -> None:
    assert bos_verdict(share, positions, 0.5).passed is passed


def test_a_limit_of_one_lets_all_first_tokens_pass() -> None:
    assert bos_verdict(1.0, 0.01, 1.0).passed


def test_first_tokens_are_described_by_their_numbers() -> None:
    found = bos_verdict(0.9, 0.01, 0.5)
    assert found.description == (
        "90.0% of the examples are strongest at a first or special token, which are 1.0% of the counted positions; "
        "more than 50% are not expected"
    )
    assert found.metadata == {"bos_share": 0.9, "maximum_bos_share": 0.5, "bos_positions": 0.01}
