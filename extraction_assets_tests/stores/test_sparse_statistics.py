"""Statistics as they are stored: what is 0 takes no place, and everything comes back as it was."""

from pathlib import Path

import pytest
import torch

from extraction_assets.engine.statistics.registry import STATISTICS, bytes_per_feature
from extraction_assets.stores.sealed import DamagedFileError
from extraction_assets.stores.sparse_statistics import dense_statistics, sparse_statistics

PATH = Path("t.statistics.safetensors")
SIZE = next(one.size for one in STATISTICS if one.name == "histogram") or 0


def counts(share: float, largest: int, features: int = 50) -> torch.Tensor:
    random = torch.Generator().manual_seed(int(largest) % 97)
    kept = torch.rand(features, SIZE, generator=random) < share
    return torch.randint(1, largest + 1, (features, SIZE), generator=random) * kept


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("largest", [1, 255, 256, 2**31 - 1, 2**31, 2**62])
def test_counts_come_back_equal(share: float, largest: int) -> None:
    statistics = {"histogram": counts(share, largest), "max_activation": torch.rand(50)}
    back = dense_statistics(PATH, sparse_statistics(statistics))
    assert set(back) == set(statistics)
    for name, tensor in statistics.items():
        assert torch.equal(back[name], tensor)
        assert back[name].dtype == tensor.dtype


def test_what_is_zero_takes_one_byte_a_feature() -> None:
    stored = sparse_statistics({"histogram": counts(0.0, 1)})
    assert sum(tensor.nbytes for tensor in stored.values()) == 50


def test_an_entry_takes_its_place_and_its_value_alone() -> None:
    stored = sparse_statistics({"histogram": counts(0.1, 200)})
    entries = len(stored["histogram.values"])
    assert 0 < entries == sum(tensor.nbytes for tensor in stored.values()) - 50 - entries


def test_what_has_few_zeros_is_stored_whole() -> None:
    statistics = {"histogram": counts(1.0, 2**62)}
    assert sparse_statistics(statistics) == statistics


def test_no_features_have_no_statistics() -> None:
    empty = torch.zeros(0, SIZE, dtype=torch.int64)
    assert dense_statistics(PATH, sparse_statistics({"histogram": empty}))["histogram"].shape == (0, SIZE)


def test_a_file_of_an_earlier_version_holds_them_whole() -> None:
    statistics = {one.name: torch.zeros(3, one.size or 1, dtype=torch.int64) for one in STATISTICS}
    assert dense_statistics(PATH, statistics) == statistics


def test_statistics_of_a_chunk_are_a_tenth_of_those_in_memory() -> None:
    """As in a chunk of 5,000 samples: a feature's firings fall into six powers of two."""
    lists = {one.name: one.size for one in STATISTICS if one.size is not None}
    tensors = {name: torch.zeros(1000, size, dtype=torch.int64) for name, size in lists.items()}
    for tensor in tensors.values():
        tensor[:, 20:26] = 30_000
    assert sum(tensor.nbytes for tensor in sparse_statistics(tensors).values()) < 100 * bytes_per_feature()


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("counts", lambda one: one + 1, "do not fit its features"),
        ("counts", lambda one: one.long(), "do not fit its features"),
        ("values", lambda one: one[:-1], "do not fit its features"),
        ("values", lambda one: one.float(), "do not fit its features"),
        ("columns", lambda one: one.flip(0), "are not in order"),
        ("columns", lambda one: one * 0, "are not in order"),
        ("columns", lambda one: one + SIZE, "are not in order"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: str, change: object, said: str) -> None:
    stored = sparse_statistics({"histogram": counts(0.3, 200)})
    assert callable(change)
    with pytest.raises(DamagedFileError, match=f"the entries of its histogram {said}"):
        dense_statistics(PATH, {**stored, f"histogram.{part}": change(stored[f"histogram.{part}"])})
