"""Statistics are counts and exact sums, so that any grouping and order gives identical integers."""

import math
import statistics
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from extraction_assets.engine.selection.intervals import HISTOGRAM_BINS
from extraction_assets.engine.selection.pairs import pairs_above
from extraction_assets.engine.selection.select import sample_maxima
from extraction_assets.engine.statistics import accumulate as accumulate_module
from extraction_assets.engine.statistics.accumulate import (
    DTYPES,
    StatisticsAccumulator,
    _add,
    _counted_firings,
    add_statistics,
    merge_statistics,
    statistics_update,
)
from extraction_assets.engine.statistics.exact_sums import whole_numbers
from extraction_assets.engine.statistics.firings import Addition, CountedFirings
from extraction_assets.engine.statistics.registry import (
    COLUMNS,
    HISTOGRAM_EDGES,
    STATISTICS,
    FeatureStatistics,
    Statistic,
    activation_sum,
    bytes_per_feature,
    mean_activation,
    std_activation,
)
from extraction_assets.engine.statistics.rows_and_sentences import feature_rows, statistics_table, unknown_sizes
from extraction_assets_tests import statistics_oracle
from extraction_assets_tests.engine import oracle
from extraction_assets_tests.engine.build import (
    assert_same,
    counted_features,
    rows_of,
    statistics_differences,
    statistics_of,
)
from extraction_assets_tests.engine.strategies import Drawn, encoded, random_features

finite = st.floats(2.0**-149, 2.0**127, width=32)


def of_values(values: list[float]) -> FeatureStatistics:
    """Statistics of one feature that takes these values in one sample."""
    dense = np.array(values, dtype=np.float32)[None, :, None]
    return statistics_of(Drawn(dense, np.ones(dense.shape[:2], dtype=bool)))


def exact_sums(statistics: FeatureStatistics) -> list[Fraction]:
    """The sums that the limbs stand for: limb l is worth 2^(8l - 150)."""
    return [
        Fraction(sum(limb << (8 * i) for i, limb in enumerate(row)), 2**150)
        for row in statistics.activation_limbs.tolist()
    ]


# The descriptions


def test_every_column_has_a_slow_twin() -> None:
    assert [column.name for column in COLUMNS] == list(statistics_oracle.ORACLE)


def test_every_statistic_is_a_field_of_the_result() -> None:
    fields = set(FeatureStatistics._fields) - {"samples_seen", "tokens_seen"}
    assert fields == {one.name for one in STATISTICS}


@pytest.mark.parametrize("one", STATISTICS, ids=lambda one: one.name)
def test_a_statistic_is_of_the_described_dtype_and_shape(one: Statistic) -> None:
    tensor = getattr(statistics_of(random_features(4, 5, 3, seed=1)), one.name)
    assert tensor.dtype == DTYPES[one.dtype]
    assert tensor.shape == ((3,) if one.size is None else (3, one.size))


@pytest.mark.parametrize("one", STATISTICS, ids=lambda one: one.name)
def test_a_statistic_is_added_up_or_derived(one: Statistic) -> None:
    assert (one.additions is None) != (one.derive is None)


def test_the_table_of_the_docs_names_every_column() -> None:
    lines = [line for line in statistics_table().splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == [column.name for column in COLUMNS]


def test_the_bytes_of_a_feature_are_those_of_its_tensors() -> None:
    found = statistics_of(random_features(4, 5, 3, seed=1))
    tensors = [value for value in found if isinstance(value, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in tensors) == 3 * bytes_per_feature()


@pytest.mark.slow
@given(encoded())
def test_statistics_equal_brute_force(drawn: Drawn) -> None:
    found = statistics_of(drawn)
    assert statistics_differences(found, oracle.firings(*drawn)) == []
    assert (found.samples_seen, found.tokens_seen) == (len(drawn.dense), int(drawn.counted.sum()))


@given(encoded())
def test_sums_are_exact(drawn: Drawn) -> None:
    right = [sum(map(Fraction, firings.all), Fraction(0)) for firings in oracle.firings(*drawn)]
    assert exact_sums(statistics_of(drawn)) == right


def test_hand_computed_counts() -> None:
    dense = np.array([[[2, 0], [3, 0]], [[0, 0], [1, 7]]], dtype=np.float32)
    found = statistics_of(Drawn(dense, np.array([[True, True], [True, False]])))
    assert found.sample_count.tolist() == [1, 0]
    assert found.token_count.tolist() == [2, 0]
    assert found.max_activation.tolist() == [3, 0]
    assert (found.samples_seen, found.tokens_seen) == (2, 3)
    assert activation_sum(found).tolist() == [5, 0]


# The histogram


def test_edges_are_powers_of_two_with_open_ends() -> None:
    assert len(HISTOGRAM_EDGES) == HISTOGRAM_BINS + 1 == statistics_oracle.BINS + 1
    assert HISTOGRAM_EDGES[:3] == [0.0, 2.0**-19, 2.0**-18]
    assert HISTOGRAM_EDGES[-3:] == [2.0**18, 2.0**19, math.inf]


@pytest.mark.parametrize("edge_bin", range(1, HISTOGRAM_BINS))
def test_an_edge_belongs_to_the_bin_above_it(edge_bin: int) -> None:
    edge = np.float32(HISTOGRAM_EDGES[edge_bin])
    below = np.nextafter(edge, np.float32(0))
    counts = of_values([float(edge), float(below), float(below)]).histogram[0]
    assert counts.nonzero().squeeze(1).tolist() == [edge_bin - 1, edge_bin]
    assert counts[[edge_bin - 1, edge_bin]].tolist() == [2, 1]


@pytest.mark.parametrize(("value", "own_bin"), [(1e-45, 0), (1e-40, 0), (2.0**-126, 0), (1e30, 39), (3.4e38, 39)])
def test_extreme_values_fall_into_the_open_ends(value: float, own_bin: int) -> None:
    assert of_values([value]).histogram[0].nonzero().item() == own_bin


@given(st.lists(finite, min_size=1, max_size=8))
def test_bins_follow_the_published_edges(values: list[float]) -> None:
    expected = np.histogram(values, bins=HISTOGRAM_EDGES)[0]
    assert of_values(values).histogram[0].tolist() == expected.tolist()


# Sum and mean


@given(st.lists(finite, min_size=1, max_size=30))
def test_the_mean_is_that_of_an_exact_sum(values: list[float]) -> None:
    assert mean_activation(of_values(values))[0] == pytest.approx(math.fsum(values) / len(values), rel=1e-12)


def test_the_mean_of_subnormals_is_not_lost() -> None:
    tiny = float(np.float32(1e-45))
    assert mean_activation(of_values([tiny, 3 * tiny]))[0] == 2 * tiny


def test_a_large_value_does_not_swallow_small_ones() -> None:
    total = exact_sums(of_values([2.0**100, *[1.0] * 7, 2.0**-140]))[0]
    assert total == 2**100 + 7 + Fraction(1, 2**140)


def test_the_mean_is_over_firing_tokens_and_nan_where_there_are_none() -> None:
    dense = np.array([[[4, 0], [0, 0], [2, -1]]], dtype=np.float32)
    mean = mean_activation(statistics_of(Drawn(dense, np.ones((1, 3), dtype=bool))))
    assert mean[0] == 3
    assert math.isnan(mean[1])


# Standard deviation


@given(st.lists(finite, min_size=1, max_size=30))
def test_the_standard_deviation_is_that_ofwhole_numbers(values: list[float]) -> None:
    assert std_activation(of_values(values))[0] == pytest.approx(statistics.pstdev(map(Fraction, values)), rel=1e-15)


def test_activations_close_to_their_mean_do_not_cancel() -> None:
    near = [float(np.nextafter(np.float32(1e6), np.float32(side))) for side in (0, 2e6)]
    assert std_activation(of_values(near * 1000))[0] == pytest.approx((near[1] - near[0]) / 2, rel=1e-15)


@pytest.mark.parametrize("value", [1e-45, 0.1, 3.4e38])
def test_equal_activations_do_not_deviate(value: float) -> None:
    assert std_activation(of_values([value] * 7))[0] == 0


def test_a_feature_that_never_fires_has_no_standard_deviation() -> None:
    found = statistics_of(Drawn(np.zeros((1, 3, 1), dtype=np.float32), np.ones((1, 3), dtype=bool)))
    assert math.isnan(std_activation(found)[0])


def test_limbs_may_be_full() -> None:
    most = torch.tensor([[2**63 - 1]]).expand(1, 67)
    assert whole_numbers(most) == [sum((2**63 - 1) << 8 * limb for limb in range(67))]


# Merging


def test_what_one_part_lacks_is_unknown_of_all() -> None:
    known = of_values([1.0, 2.0])
    merged = merge_statistics([known, known._replace(square_limbs=None), known])
    assert merged.square_limbs is None
    assert merged.token_count.tolist() == [6]


def as_feature(**unknown: None) -> SimpleNamespace:
    return SimpleNamespace(**{**feature_rows(of_values([1.0, 3.0]))[0], **unknown})


def test_what_earlier_versions_did_not_count_is_named_of_a_feature_that_fires() -> None:
    sentence = unknown_sizes([as_feature(), as_feature(std_activation=None)])
    assert sentence is not None
    assert sentence.startswith("std_activation is not known in this result: some of its chunks are of an earlier")
    assert unknown_sizes([as_feature()]) is None
    assert unknown_sizes([as_feature(std_activation=None)], ["std_activation"]) == sentence
    assert unknown_sizes([as_feature(std_activation=None)], ["mean_activation"]) is None


def test_nothing_is_unknown_of_a_feature_that_never_fires() -> None:
    (dead,) = feature_rows(of_values([]))
    assert unknown_sizes([SimpleNamespace(**dead)]) is None


@pytest.mark.slow
@given(encoded(max_samples=8), st.data())
def test_merged_in_any_groups_and_order_the_integers_are_identical(drawn: Drawn, data: st.DataObject) -> None:
    total = len(drawn.dense)
    cuts = sorted({0, total, *data.draw(st.lists(st.integers(1, total), max_size=3))})
    parts = [statistics_of(rows_of(drawn, a, b)) for a, b in pairwise(cuts)]
    assert_same(merge_statistics(data.draw(st.permutations(parts))), statistics_of(drawn))


def test_merging_is_associative_on_a_larger_corpus() -> None:
    drawn = random_features(40, 9, 5, seed=7, density=0.8)
    a, b, c = (statistics_of(rows_of(drawn, start, stop)) for start, stop in [(0, 3), (3, 20), (20, 40)])
    left = merge_statistics([merge_statistics([a, b]), c])
    assert_same(left, merge_statistics([a, merge_statistics([b, c])]))
    assert_same(left, statistics_of(drawn))


def test_statistics_are_added_in_place_and_what_is_added_stays() -> None:
    drawn = random_features(40, 9, 5, seed=7, density=0.8)
    parts = [statistics_of(rows_of(drawn, start, stop)) for start, stop in [(0, 3), (3, 20), (20, 40)]]
    total = None
    for part in parts:
        total = add_statistics(total, part)
    assert total is not None
    assert_same(total, statistics_of(drawn))
    assert_same(parts[0], statistics_of(rows_of(drawn, 0, 3)))


def test_all_counts_are_64_bit() -> None:
    assert {one.dtype for one in STATISTICS if one.merge == "sum"} == {"int64"}


# Adding up


def accumulated(groups: list[Drawn], num_features: int) -> FeatureStatistics:
    """One accumulator's statistics after all groups of samples."""
    accumulator = StatisticsAccumulator(num_features)
    for group in groups:
        features = counted_features(group)
        maxima = sample_maxima(features)
        update = statistics_update(features, maxima, pairs_above(maxima))
        accumulator.add(update, len(group.dense), int(group.counted.sum()))
    return accumulator.build()


@given(encoded(max_samples=8), st.data())
def test_accumulating_in_any_groups_and_order_equals_merging(drawn: Drawn, data: st.DataObject) -> None:
    total = len(drawn.dense)
    cuts = sorted({0, total, *data.draw(st.lists(st.integers(1, total), max_size=3))})
    groups = [rows_of(drawn, a, b) for a, b in pairwise(cuts)]
    merged = merge_statistics([statistics_of(group) for group in groups])
    assert_same(accumulated(data.draw(st.permutations(groups)), drawn.dense.shape[2]), merged)


def test_an_accumulator_without_samples_is_all_zeros() -> None:
    found = StatisticsAccumulator(3).build()
    for one in STATISTICS:
        assert not getattr(found, one.name).any()
    assert (found.samples_seen, found.tokens_seen) == (0, 0)


def test_working_out_an_update_leaves_the_features_as_they_were() -> None:
    features = counted_features(random_features(4, 5, 3, seed=1))
    before = type(features)(*(column.clone() for column in features[:3]), *features[3:])
    statistics_update(features, sample_maxima(features))
    assert_same(features, before)


def test_a_statistic_without_a_kernel_is_counted_as_it_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    features = counted_features(random_features(4, 5, 3, seed=1))
    maxima = sample_maxima(features)
    without = {one.name for one in STATISTICS if one.additions is not None and not one.has_kernel}
    assert set(statistics_update(features, maxima, pairs_above(maxima), without_kernel=True)) == without
    new = [replace(one, has_kernel=one.name != "histogram") for one in STATISTICS]
    monkeypatch.setattr(accumulate_module, "STATISTICS", new)
    (name,) = found = statistics_update(features, maxima, pairs_above(maxima), without_kernel=True)
    assert name == "histogram"
    assert_same(found[name][0], statistics_update(features, maxima)[name][0])


def test_an_update_keeps_the_bytes_that_are_stated() -> None:
    features = counted_features(random_features(4, 5, 3, seed=1))
    update = statistics_update(features, sample_maxima(features))
    kept = [update[one.name] for one in STATISTICS if one.has_kernel and one.name in update]  # the first ones
    tensors = [tensor for one in kept for added in one for tensor in (added.amounts, added.at)]
    storages = {one.untyped_storage().data_ptr(): one.nbytes for one in tensors if one is not None}
    assert sum(storages.values()) == 56 * len(features.values) + 12 * features.num_features


def test_an_update_needs_no_more_memory_than_stated() -> None:
    features = counted_features(random_features(8, 400, 6, seed=1, density=0.8))
    maxima = sample_maxima(features)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        update = statistics_update(features, maxima)
    recorded: Any = profiled.profiler
    memory = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    in_time = sorted(memory, key=lambda event: event.start_ns())
    peak = max(accumulate(event.nbytes() for event in in_time))
    assert update
    assert 90 * len(features.values) < peak <= 104 * len(features.values) + 12 * features.num_features


# A maximum and a minimum of single firings


def smallest_bits(firings: CountedFirings) -> list[Addition]:
    """What a minimum adds, as ``Statistic.merge`` says."""
    return [Addition(0x7FFFFFFF - firings.bits(), firings.features)]


def largest_bits(firings: CountedFirings) -> list[Addition]:
    return [Addition(firings.bits(), firings.features * 2, offset=1)]


def added_up(statistic: Statistic, groups: list[Drawn], num_features: int) -> torch.Tensor:
    total = torch.zeros(num_features * (statistic.size or 1), dtype=DTYPES[statistic.dtype])
    for group in groups:
        features = counted_features(group)
        for addition in statistic.additions(_counted_firings(features, sample_maxima(features))):  # type: ignore[misc]
            _add(total, statistic, addition)
    return total


def as_values(bits: torch.Tensor) -> list[float]:
    return bits.to(torch.int32).view(torch.float32).tolist()


@given(encoded(max_samples=8))
def test_a_minimum_of_firings_equals_its_slow_twin(drawn: Drawn) -> None:
    smallest = Statistic("smallest", "int64", None, "max", "", additions=smallest_bits)
    halves = [rows_of(drawn, 0, 1), rows_of(drawn, 1, len(drawn.dense))]
    found = added_up(smallest, halves if len(drawn.dense) > 1 else [drawn], drawn.dense.shape[2])
    expected = [min(firings.all, default=None) for firings in oracle.firings(*drawn)]
    values = as_values(0x7FFFFFFF - found)
    assert [value if most else None for value, most in zip(values, found.tolist(), strict=True)] == expected


@given(encoded())
def test_a_maximum_of_firings_goes_where_its_offset_says(drawn: Drawn) -> None:
    largest = Statistic("largest", "int64", 2, "max", "", additions=largest_bits)
    found = added_up(largest, [drawn, drawn], drawn.dense.shape[2]).view(-1, 2)
    assert not found[:, 0].any()
    assert as_values(found[:, 1]) == [max(firings.all, default=0) for firings in oracle.firings(*drawn)]
