"""One hash, whose bits are the same in Python and in tensors, and which scatters."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.engine.selection.hashing import pair_hash, sample_hash, sample_keys, sampled
from extraction_assets_tests import draws_oracle

seeds, samples, features = st.integers(0, 2**32 - 1), st.integers(0, 2**41), st.integers(0, 2**31)


@given(seeds, samples, features)
def test_tensors_python_and_the_oracle_agree_to_the_bit(seed: int, sample: int, feature: int) -> None:
    keys = sample_keys(seed, torch.tensor([sample]))
    expected = draws_oracle.hash_of(seed, feature, sample)
    assert pair_hash(keys, torch.tensor([feature])).item() == expected
    assert pair_hash(sample_keys(seed, sample), feature) == expected
    assert sample_hash(keys).item() == sample_hash(sample_keys(seed, sample)) == draws_oracle.key_of(seed, sample) >> 33


def test_the_numbers_are_those_of_splitmix64() -> None:
    """State 0, which seed 0 has; the first three published numbers."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [sample_keys(0, number) for number in (1, 2, 3)] == published


@given(seeds, samples)
def test_a_hash_is_a_positive_int32(seed: int, sample: int) -> None:
    assert 0 <= pair_hash(sample_keys(seed, sample), 5) < 2**31


def test_the_sample_of_samples_has_its_rate_and_follows_the_seed() -> None:
    numbers = torch.arange(2**33, 2**33 + 160_000)
    chosen = sampled(0, numbers, 16)
    assert 9_700 < int(chosen.sum()) < 10_300
    assert not torch.equal(chosen, sampled(1, numbers, 16))
    assert bool(sampled(0, numbers, 1).all())


@pytest.mark.parametrize("sample", [7, 2**31 + 5, 10**12])
def test_a_sample_is_chosen_by_its_own_number_alone(sample: int) -> None:
    numbers = torch.tensor([3, sample, 2**40])
    assert sampled(9, numbers, 3).tolist() == [draws_oracle.is_sampled(9, int(n), 3) for n in numbers]


def test_hashes_of_one_sample_and_of_one_feature_are_uniform() -> None:
    many = torch.arange(100_000)
    of_sample = pair_hash(sample_keys(0, torch.full_like(many, 12)), many)
    of_feature = pair_hash(sample_keys(0, many), torch.full_like(many, 12))
    for hashes in (of_sample, of_feature):
        shares = torch.bincount(hashes >> 27, minlength=16) / len(many)
        assert len(shares) == 16
        assert 0.059 < float(shares.min()) <= float(shares.max()) < 0.066
