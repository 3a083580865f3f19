"""A whole result at a glance: shares by hand, and features worth a look with the reason for each."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
import torch

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.queries.overview import (
    DENSE,
    Noted,
    firing_select,
    flagged_select,
    shares,
    shares_select,
    worth_a_look,
)
from extraction_assets.database.tables import feature_example_lists, feature_flags
from extraction_assets.database.writing.feature_examples import replace_results
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.plans import assert_uses_index
from extraction_assets_tests.database.stored_rows import store_rows
from extraction_assets_tests.database.synthetic import CORPUS, NUM_POSITIONS, NUM_SAMPLES, make_results

TOKENS = NUM_SAMPLES * NUM_POSITIONS
COUNTS = [0, 3, 40, int(DENSE * TOKENS), int(DENSE * TOKENS) + 1, TOKENS]
"""Tokens on which each of six features fires: one never, two on more than a tenth."""


@pytest.fixture
def loaded(results_url: str) -> Iterator[tuple[sa.Connection, int]]:
    """Six features with 20 examples each; feature 2 has a different strongest token in each, the others one."""
    made = make_results("f", 1.5, num_features=len(COUNTS), top_k=20)
    tokens = torch.tensor(COUNTS)
    samples = torch.minimum(tokens, torch.tensor(NUM_SAMPLES))
    maxima = torch.tensor([0.0, 9.0, 1.5, 1.5, 1.5, 1.5])
    statistics = made.statistics._replace(token_count=tokens, sample_count=samples, max_activation=maxima)
    table = made.table

    def display(ids: list[int]) -> list[str]:
        return [f"word{token % 7}" for token in ids]

    engine = open_database(results_url)
    with write_transaction(engine) as connection:
        extraction_id = replace_results(connection, made.extraction, CORPUS, table, statistics, display)
    with engine.connect() as connection:
        yield connection, extraction_id
    engine.dispose()


def groups(loaded: tuple[sa.Connection, int]) -> dict[str, list[Noted]]:
    return {group.title: group.features for group in worth_a_look(*loaded)}


def test_dead_and_dense_features_are_counted(loaded: tuple[sa.Connection, int]) -> None:
    assert shares(*loaded) == (6, 1, 2)


def test_dense_features_come_the_densest_first(loaded: tuple[sa.Connection, int]) -> None:
    assert groups(loaded)["Dense"] == [
        Noted(5, "fires on 100.0% of the tokens"),
        Noted(4, "fires on 10.0% of the tokens"),
    ]


def test_a_feature_of_few_samples_is_rare(loaded: tuple[sa.Connection, int]) -> None:
    assert groups(loaded)["Rare and strong"] == [Noted(1, "fires in 3 samples, up to 9")]


def test_a_clear_feature_says_on_which_word_its_examples_agree(loaded: tuple[sa.Connection, int]) -> None:
    whys = [one.why for one in groups(loaded)["Clear"]]
    assert whys
    assert all(" of its 20 strongest examples are on " in why for why in whys)


@kinds.sql
def test_an_unclear_feature_says_how_many_tokens_it_is_strongest_on(loaded: tuple[sa.Connection, int]) -> None:
    connection, extraction_id = loaded
    of_feature = feature_example_lists.c.neuron_index == 2
    examples = [[sample, 1.5, f"token {sample % 15}", [0], [1.5]] for sample in range(20)]
    connection.execute(sa.update(feature_example_lists).where(of_feature).values(examples=examples))
    assert groups((connection, extraction_id))["Unclear"] == [
        Noted(2, "15 different tokens in its 20 strongest examples")
    ]
    connection.rollback()


def test_a_kind_without_features_is_left_out(loaded: tuple[sa.Connection, int]) -> None:
    found = groups(loaded)
    assert all(found.values())
    assert "Peaked" not in found  # no feature has a mean here


def test_features_that_fire_are_all_but_the_dead(loaded: tuple[sa.Connection, int]) -> None:
    connection, extraction_id = loaded
    assert list(connection.scalars(firing_select(extraction_id))) == [1, 2, 3, 4, 5]


def test_flagged_features_come_the_strongest_first(loaded: tuple[sa.Connection, int]) -> None:
    connection, extraction_id = loaded
    rows = [
        {"extraction_id": extraction_id, "flag": "one_token", "neuron_index": index, "detail": None} for index in (2, 1)
    ]
    store_rows(connection, feature_flags, rows)
    found = connection.execute(flagged_select(extraction_id, "one_token", 8))
    assert [index for index, _ in found] == [1, 2]
    connection.rollback()


@pytest.mark.parametrize("select", [shares_select, firing_select])
def test_features_are_found_by_their_extraction(loaded: tuple[sa.Connection, int], select: object) -> None:
    connection, extraction_id = loaded
    assert_uses_index(connection, select(extraction_id), "features")  # type: ignore[operator]
