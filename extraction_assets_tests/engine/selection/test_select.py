"""The vectorized selection says what brute force and the sequential loop say, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from extraction_assets.engine.selection.select import (
    sample_maxima,
    select_top_k,
    vectorized_max_activations,
    vectorized_top_k_positions,
)
from extraction_assets.engine.shapes import SparseFeatures
from extraction_assets_tests.engine import oracle
from extraction_assets_tests.engine.build import assert_same, counted_features, legacy, plain, select
from extraction_assets_tests.engine.strategies import Drawn, encoded, min_activations, random_features


def one_feature(*samples: list[float], counted: list[list[bool]] | None = None) -> Drawn:
    """Samples of a single feature, all positions counted unless said otherwise."""
    dense = np.array(samples, dtype=np.float32)[:, :, None]
    return Drawn(dense, np.array(counted) if counted else np.ones(dense.shape[:2], dtype=bool))


# The whole selection


@pytest.mark.slow
@given(encoded(), st.sampled_from([1, 2, 3, 100, 1000]), min_activations)
@example(one_feature([0.1], [0.5]), 1, 0.1)
def test_vectorized_equals_legacy_equals_brute_force(drawn: Drawn, k: int, min_activation: float) -> None:
    table = select(drawn, k, first_sample=40, floor=min_activation)
    assert_same(table, legacy(drawn, k, first_sample=40, min_activation=min_activation))
    assert plain(table) == oracle.top_k(*drawn, first_sample=40, k=k, min_activation=min_activation)


@pytest.mark.parametrize(
    ("samples", "positions", "features", "k"), [(64, 16, 8, 10), (37, 7, 33, 1), (130, 3, 5, 1000), (1, 1, 1, 1)]
)
def test_larger_shapes_agree_too(samples: int, positions: int, features: int, k: int) -> None:
    drawn = random_features(samples, positions, features, seed=k)
    table = select(drawn, k)
    assert_same(table, legacy(drawn, k))
    assert plain(table) == oracle.top_k(*drawn, k=k)


def test_a_hand_computed_table() -> None:
    table = select(one_feature([0, 2, 5, 2], [5, 0, 0, 0], [1, 1, 1, 9], [0, 0, 0, 0]), 2)
    assert table.neuron_index.tolist() == [0, 0]
    assert table.sample_index.tolist() == [2, 0]
    assert table.max_activation.tolist() == [9, 5]
    assert table.firing_offsets.tolist() == [0, 4, 7]
    assert table.positions.tolist() == [3, 0, 1, 2, 2, 1, 3]
    assert table.activations.tolist() == [9, 1, 1, 1, 5, 2, 2]


def test_equal_maxima_go_to_the_lower_sample() -> None:
    assert select(one_feature([1], [2], [2], [2]), 2).sample_index.tolist() == [1, 2]


def test_equal_activations_go_to_the_lower_position() -> None:
    assert select(one_feature([3, 7, 3, 7]), 1).positions.tolist() == [1, 3, 0, 2]


def test_neighbouring_floats_are_no_tie() -> None:
    above = np.nextafter(np.float32(1), np.float32(2))
    assert select(one_feature([1.0], [above], [1.0]), 3).sample_index.tolist() == [1, 0, 2]


def test_a_maximum_equal_to_min_activation_is_no_example() -> None:
    assert select(one_feature([0.5, 0.25], [0.5, 0.75]), 5, floor=0.5).sample_index.tolist() == [1]


def test_min_activation_is_compared_as_a_float32() -> None:
    stored = float(np.float32(0.1))
    assert stored > 0.1  # as float64 it would be an example
    assert plain(select(one_feature([stored]), 5, floor=0.1)) == {}
    assert plain(legacy(one_feature([stored]), 5, min_activation=0.1)) == {}


def test_firings_below_min_activation_are_kept_with_their_example() -> None:
    assert select(one_feature([0.25, 0.75]), 5, floor=0.5).activations.tolist() == [0.75, 0.25]


def test_positions_that_do_not_count_neither_make_nor_accompany_an_example() -> None:
    drawn = one_feature([9, 1, 0], [9, 0, 0], counted=[[False, True, True], [False, True, True]])
    assert plain(select(drawn, 5)) == {0: [(1.0, 0, [(1, 1.0)])]}


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), float("-inf")])
def test_padding_may_hold_anything(rubbish: float) -> None:
    drawn = one_feature([1, rubbish], [rubbish, rubbish], counted=[[True, False], [False, False]])
    assert plain(select(drawn, 5)) == {0: [(1.0, 0, [(0, 1.0)])]}


def test_zeros_of_both_signs_and_negative_values_are_no_firings() -> None:
    table = select(one_feature([0.0, -0.0, -3.0]), 5)
    assert len(table.neuron_index) == len(table.positions) == 0
    assert table.firing_offsets.tolist() == [0]


def test_the_smallest_subnormal_fires() -> None:
    assert plain(select(one_feature([1e-45]), 5)) == {
        0: [(float(np.float32(1e-45)), 0, [(0, float(np.float32(1e-45)))])]
    }


def test_a_floor_for_each_feature_drops_maxima_up_to_it() -> None:
    drawn = Drawn(np.full((2, 1, 3), 2, dtype=np.float32), np.ones((2, 1), dtype=bool))
    table = select(drawn, 5, floor=torch.tensor([1.0, 2.0, 3.0]))
    assert plain(table).keys() == {0}


# Widths that no single 63-bit key holds


def wide_features(num_features: int, num_positions: int) -> tuple[SparseFeatures, dict[int, list[oracle.Example]]]:
    """Two samples, two strong features at the far end, with firings at the far end too; and what they must give."""
    last, end = num_features - 1, num_positions - 1
    entries = sorted(
        [(0, last, 2.0), (end, last, 2.0), (end, 0, 1.0), (num_positions + end, last, 2.0), (num_positions, last, 1.0)]
    )
    tokens, features, values = zip(*entries, strict=True)
    sparse = SparseFeatures(
        torch.tensor(tokens), torch.tensor(features), torch.tensor(values), 2, num_positions, num_features
    )
    first, second = (2.0, 2**40, [(0, 2.0), (end, 2.0)]), (2.0, 2**40 + 1, [(end, 2.0), (0, 1.0)])
    return sparse, {0: [(1.0, 2**40, [(end, 1.0)])], last: [first, second]}


@pytest.mark.parametrize(("num_features", "num_positions"), [(2**20, 8192), (2**20 + 1, 8193)])
def test_a_million_features_and_eight_thousand_positions(num_features: int, num_positions: int) -> None:
    sparse, expected = wide_features(num_features, num_positions)
    table = select_top_k(sparse, sample_maxima(sparse), 2**40, 100)
    assert plain(table) == expected


# The plan's functions on dense features


def test_vectorized_max_is_the_maximum_over_positions() -> None:
    dense = torch.tensor([[1.0, -5.0], [3.0, -2.0]])
    assert vectorized_max_activations(dense).tolist() == [3.0, -2.0]
    assert vectorized_max_activations(torch.stack([dense, -dense])).tolist() == [[3.0, -2.0], [-1.0, 5.0]]


@given(encoded(max_samples=3))
def test_vectorized_max_of_a_batch_is_that_of_its_samples(drawn: Drawn) -> None:
    dense = torch.from_numpy(np.nan_to_num(drawn.dense))
    together = vectorized_max_activations(dense)
    assert torch.equal(together, torch.stack([vectorized_max_activations(sample) for sample in dense]))
    assert np.array_equal(together.numpy(), dense.numpy().max(axis=1))


@given(encoded(max_samples=3), st.integers(1, 8))
def test_vectorized_top_positions_equal_brute_force(drawn: Drawn, k: int) -> None:
    dense, counted = torch.from_numpy(drawn.dense), torch.from_numpy(drawn.counted)
    values, positions = vectorized_top_k_positions(dense, k, mask=counted)
    assert values.shape == positions.shape == (len(dense), dense.shape[2], k)
    for row in range(len(dense)):
        found = oracle.top_k(drawn.dense[row : row + 1], drawn.counted[row : row + 1])
        for feature in range(dense.shape[2]):
            firings = found[feature][0][2][:k] if feature in found else []
            expected = firings + [(-1, 0.0)] * (k - len(firings))
            own = zip(positions[row, feature].tolist(), values[row, feature].tolist(), strict=True)
            assert list(own) == expected


def test_top_positions_of_one_sample_have_no_batch_axis() -> None:
    values, positions = vectorized_top_k_positions(torch.tensor([[1.0, 0.0], [4.0, 2.0], [4.0, 0.0]]), k=2)
    assert values.tolist() == [[4.0, 4.0], [2.0, 0.0]]
    assert positions.tolist() == [[1, 2], [1, -1]]


def test_top_positions_are_five_unless_said_otherwise() -> None:
    assert vectorized_top_k_positions(torch.ones(9, 2)).positions.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_top_positions_beyond_the_sample_are_unused_slots() -> None:
    values, positions = vectorized_top_k_positions(torch.tensor([[2.0], [3.0]]), k=4)
    assert values.tolist() == [[3.0, 2.0, 0.0, 0.0]]
    assert positions.tolist() == [[1, 0, -1, -1]]


def test_top_positions_skip_what_the_mask_excludes_even_nan() -> None:
    dense = torch.tensor([[float("nan")], [1.0], [float("inf")]])
    values, positions = vectorized_top_k_positions(dense, k=2, mask=torch.tensor([False, True, False]))
    assert (values.tolist(), positions.tolist()) == ([[1.0, 0.0]], [[1, -1]])


def test_one_mask_serves_all_samples_of_a_batch() -> None:
    positions = vectorized_top_k_positions(torch.ones(2, 3, 1), k=3, mask=torch.tensor([False, True, True])).positions
    assert positions.tolist() == [[[1, 2, -1]]] * 2


def test_top_positions_hold_no_filler_where_float64_underflows() -> None:
    values, positions = vectorized_top_k_positions(torch.tensor([[1e-60], [1.0]], dtype=torch.float64), k=2)
    assert (values.tolist(), positions.tolist()) == ([[1.0, 0.0]], [[1, -1]])


def test_top_positions_of_half_precision_are_widened() -> None:
    values, positions = vectorized_top_k_positions(torch.tensor([[0.5], [2.0]], dtype=torch.bfloat16), k=1)
    assert (values.dtype, values.tolist(), positions.tolist()) == (torch.float32, [[2.0]], [[1]])


def test_no_top_position_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        vectorized_top_k_positions(torch.ones(3, 2), k=0)


def test_top_positions_are_the_first_firings_of_the_table() -> None:
    drawn = random_features(1, 12, 6, seed=3, density=0.7)
    dense, counted = (torch.from_numpy(array) for array in drawn)
    positions = vectorized_top_k_positions(dense, k=5, mask=counted).positions[0]
    for feature, [(_, _, firings)] in plain(select(drawn, 1)).items():
        assert [p for p, _ in firings[:5]] == [p for p in positions[feature].tolist() if p >= 0]


def test_sample_maxima_are_zero_where_nothing_fires() -> None:
    features = counted_features(one_feature([0.0, 3.0, 1.0], [-1.0, 0.0, 0.0]))
    assert sample_maxima(features).tolist() == [[3.0], [0.0]]
