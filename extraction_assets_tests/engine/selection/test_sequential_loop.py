"""The sequential loop, and the comparison that finds what a table says wrongly."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from extraction_assets.engine.selection.merge import empty_table
from extraction_assets.engine.selection.sequential_loop import (
    LegacyComparison,
    LegacyHeaps,
    column_firings,
    compare_with_legacy,
)
from extraction_assets.engine.shapes import TopKTable
from extraction_assets_tests.engine.build import assert_same, legacy, plain, select
from extraction_assets_tests.engine.strategies import Drawn, encoded, min_activations, random_features

FIRST, K = 500, 3


def compare(
    table: TopKTable, drawn: Drawn, rows: list[int], k: int = K, least: float = 0.0, first: int = FIRST
) -> LegacyComparison:
    """The table of ``drawn`` held against the loop on all features of some rows."""
    dense = torch.from_numpy(drawn.dense)
    return compare_with_legacy(
        table,
        {row: dense[row] for row in rows},
        torch.from_numpy(drawn.counted),
        range(dense.shape[2]),
        first_sample=first,
        top_k=k,
        min_activation=least,
    )


def without(table: TopKTable, example: int) -> TopKTable:
    """The table with one example taken out."""
    keep = torch.arange(len(table.neuron_index)) != example
    start, stop = table.firing_offsets[example : example + 2].tolist()
    firing = torch.ones(len(table.positions), dtype=torch.bool)
    firing[start:stop] = False
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), table.firing_offsets.diff()[keep].cumsum(0)])
    columns = (column[keep] for column in table[:3])
    return TopKTable(*columns, offsets, table.positions[firing], table.activations[firing])


# The loop


def test_firings_of_a_column_come_strongest_first_then_leftmost() -> None:
    column = np.array([1.0, 0.0, 3.0, -2.0, 3.0, 9.0, np.nan], dtype=np.float32)
    counted = np.array([True] * 5 + [False, True])
    assert column_firings(column, counted) == [(2, 3.0), (4, 3.0), (0, 1.0)]


@given(encoded(), st.sampled_from([1, 2, 100]), st.randoms(use_true_random=False))
def test_the_loop_gives_the_same_in_any_order_of_samples(drawn: Drawn, k: int, random: object) -> None:
    heaps, rows = LegacyHeaps(drawn.dense.shape[2], k), list(range(len(drawn.dense)))
    random.shuffle(rows)  # type: ignore[attr-defined]
    for row in rows:
        heaps.add_sample(torch.from_numpy(drawn.dense[row]), torch.from_numpy(drawn.counted[row]), row)
    assert_same(heaps.build_heaps(), legacy(drawn, k))


def test_a_heap_without_samples_gives_the_empty_table() -> None:
    assert_same(LegacyHeaps(3).build_heaps(), empty_table())


# The comparison accepts what is right


@pytest.mark.slow
@given(encoded(), st.sampled_from([1, 2, 3, 100]), min_activations)
def test_a_right_table_agrees(drawn: Drawn, k: int, least: float) -> None:
    rows = list(range(len(drawn.dense)))
    table = select(drawn, k, first_sample=FIRST, floor=least)
    assert compare(table, drawn, rows, k, least) == (len(rows) * drawn.dense.shape[2], [])


# and finds what is wrong


@pytest.fixture
def drawn() -> Drawn:
    return random_features(12, 6, 4, seed=2, density=0.4)


@pytest.fixture
def table(drawn: Drawn) -> TopKTable:
    return select(drawn, K, first_sample=FIRST)


def test_a_changed_maximum_is_found_at_every_example(table: TopKTable, drawn: Drawn) -> None:
    for example in range(len(table.neuron_index)):
        changed = table.max_activation.clone()
        changed[example] = torch.nextafter(changed[example], torch.tensor(9.0))
        found = compare(table._replace(max_activation=changed), drawn, list(range(12)))
        feature, sample = int(table.neuron_index[example]), int(table.sample_index[example])
        assert any(text.startswith(f"feature {feature}, sample {sample}:") for text in found.mismatches)


def test_a_changed_firing_is_found_at_every_place(table: TopKTable, drawn: Drawn) -> None:
    for firing in range(len(table.positions)):
        changed = table.positions.clone()
        changed[firing] += 1
        assert compare(table._replace(positions=changed), drawn, list(range(12))).mismatches


def test_a_dropped_example_is_found_wherever_it_stood(table: TopKTable, drawn: Drawn) -> None:
    for example in range(len(table.neuron_index)):
        assert compare(without(table, example), drawn, list(range(12))).mismatches


def test_an_extra_example_is_found(drawn: Drawn) -> None:
    quiet = Drawn(drawn.dense.copy(), drawn.counted)
    quiet.dense[5] = 0  # the table says that sample 5 fires, the features say that it does not
    extra = select(Drawn(np.ones_like(drawn.dense), np.ones_like(drawn.counted)), 100, first_sample=FIRST)
    found = compare(extra, quiet, [5], k=100)
    assert [text.split(":")[0] for text in found.mismatches] == [f"feature {f}, sample 505" for f in range(4)]


def test_an_example_beyond_k_is_found(drawn: Drawn) -> None:
    too_long = select(drawn, K + 1, first_sample=FIRST)
    assert compare(too_long, drawn, list(range(12))).mismatches


def test_an_example_up_to_min_activation_is_found() -> None:
    drawn = Drawn(np.full((1, 1, 1), 0.5, dtype=np.float32), np.ones((1, 1), dtype=bool))
    table = select(drawn, K, first_sample=FIRST)
    assert plain(table)
    assert compare(table, drawn, [0], least=0.5).mismatches
    assert not compare(table, drawn, [0], least=0.25).mismatches


def test_a_tie_kept_by_the_higher_sample_is_found() -> None:
    drawn = Drawn(np.ones((2, 1, 1), dtype=np.float32), np.ones((2, 1), dtype=bool))
    both = select(drawn, 2, first_sample=FIRST)
    assert compare(without(both, 0), drawn, [0, 1], k=1).mismatches
    assert not compare(without(both, 1), drawn, [0, 1], k=1).mismatches


def test_an_empty_table_disagrees_wherever_something_fires(drawn: Drawn) -> None:
    assert compare(empty_table(), drawn, list(range(12))).mismatches


def test_at_most_ten_mismatches_are_reported() -> None:
    drawn = Drawn(np.ones((4, 1, 5), dtype=np.float32), np.ones((4, 1), dtype=bool))
    found = compare(empty_table(), drawn, [0, 1, 2, 3])
    assert (len(found.mismatches), found.pairs) == (10, 10)


def test_the_comparison_stops_when_its_time_is_up(table: TopKTable, drawn: Drawn) -> None:
    probe = {0: torch.from_numpy(drawn.dense[0]), 1: torch.from_numpy(drawn.dense[1])}
    counted = torch.from_numpy(drawn.counted)
    found = compare_with_legacy(table, probe, counted, [0, 1], first_sample=FIRST, top_k=K, seconds=-1)
    assert found == (1, [])


def test_only_the_asked_features_are_compared(table: TopKTable, drawn: Drawn) -> None:
    probe, counted = {3: torch.from_numpy(drawn.dense[3])}, torch.from_numpy(drawn.counted)
    assert compare_with_legacy(table, probe, counted, [2, 0], first_sample=FIRST, top_k=K) == (2, [])
