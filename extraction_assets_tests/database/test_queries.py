"""Features by the token that they fire on most strongly, on both databases."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
import torch

from extraction_assets.database.connect import open_database, opened_database, write_transaction
from extraction_assets.database.queries.examples import find_feature
from extraction_assets.database.queries.extractions import UnknownResultError
from extraction_assets.database.queries.words import (
    agreed_tokens_query,
    features_of_token,
    readable_features,
    strongest_query,
    token_query,
)
from extraction_assets.database.writing import example_lists
from extraction_assets.database.writing.feature_examples import replace_results
from extraction_assets_tests.database.plans import assert_uses_index
from extraction_assets_tests.database.synthetic import CORPUS, make_results

# Two examples for each of five features; the strongest token of example number i has id i modulo 8.
TOKENS = [" import", "import", "import\n", "Import", "12", "\n", "import", " exports"]


def _load(engine: sa.Engine) -> int:
    made = make_results("f", 1.0, num_features=5, top_k=2)
    activations = (made.table.neuron_index + 1).float()
    table = made.table._replace(max_activation=activations, activations=activations)
    statistics = made.statistics._replace(max_activation=torch.arange(1.0, 6.0))

    def display(ids: list[int]) -> list[str]:
        return [TOKENS[token] for token in ids]

    with write_transaction(engine) as connection:
        return replace_results(connection, made.extraction, CORPUS, table, statistics, display)


@pytest.fixture(scope="module")
def loaded(shared_results_url: str) -> Iterator[tuple[sa.Engine, int]]:
    """Results in which feature f has maximum f + 1, and their id. Not to be changed."""
    with opened_database(shared_results_url) as engine:
        yield engine, _load(engine)


@pytest.fixture
def stored(loaded: tuple[sa.Engine, int]) -> Iterator[tuple[sa.Connection, int]]:
    """A connection to them, and their id."""
    engine, number = loaded
    with engine.connect() as connection:
        yield connection, number


def test_the_feature_with_most_such_examples_comes_first_then_the_stronger_one(
    stored: tuple[sa.Connection, int],
) -> None:
    assert features_of_token(*stored, "import") == [4, 0, 3, 1]
    assert features_of_token(*stored, " import \n") == [4, 0, 3, 1]


@pytest.mark.parametrize(
    ("token", "features"), [("import", [4, 3, 0]), (" import", [4, 0]), ("import\n", [1]), ("\n", [2])]
)
def test_exact_takes_spaces_as_they_are(stored: tuple[sa.Connection, int], token: str, features: list[int]) -> None:
    assert features_of_token(*stored, token, exact=True) == features


def test_case_counts(stored: tuple[sa.Connection, int]) -> None:
    assert features_of_token(*stored, "Import") == [1]


def test_a_line_break_alone_is_a_token_too(stored: tuple[sa.Connection, int]) -> None:
    assert features_of_token(*stored, "\n") == [2]


@pytest.mark.parametrize(
    ("token", "near"), [("IMPORT", "there are 'Import', 'import'"), ("imprt", "there are 'import', 'Import'")]
)
def test_where_no_feature_has_it_near_words_are_named(stored: tuple[sa.Connection, int], token: str, near: str) -> None:
    with pytest.raises(UnknownResultError, match=f"no feature has '{token}' as .*; {near}$"):
        features_of_token(*stored, token)


def test_only_the_strongest_examples_are_looked_at(results_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example_lists, "LOOKED_AT", 1)
    engine = open_database(results_url)
    number = _load(engine)
    with engine.connect() as connection:
        assert features_of_token(connection, number, "import") == [4, 3, 1, 0]
        with pytest.raises(UnknownResultError, match="no feature has 'exports'"):
            features_of_token(connection, number, "exports")
    engine.dispose()


def test_a_number_that_no_database_holds_is_no_feature(stored: tuple[sa.Connection, int]) -> None:
    with pytest.raises(UnknownResultError, match="features are numbered from 0 to 4"):
        find_feature(*stored, 10**30)


@pytest.mark.parametrize("exact", [True, False])
def test_an_empty_token_is_refused(stored: tuple[sa.Connection, int], exact: bool) -> None:
    with pytest.raises(UnknownResultError, match=r"^a token has at least one character"):
        features_of_token(*stored, "", exact=exact)


def test_what_is_not_text_is_no_token(stored: tuple[sa.Connection, int]) -> None:
    with pytest.raises(UnknownResultError, match=r"^'\\udcff' is not UTF-8 text, so that no token is like it$"):
        features_of_token(*stored, "\udcff")


def test_features_that_agree_on_a_word_come_first_and_no_word_twice(stored: tuple[sa.Connection, int]) -> None:
    # 4 shows "import", 3 "exports" and 1 "Import"; 0 has "import" again and 2 no word: the stronger of them is first.
    assert readable_features(*stored, 2) == [4, 3]
    assert readable_features(*stored, 9) == [4, 3, 1, 2, 0]


@pytest.mark.parametrize(
    ("select", "index"),
    [
        (token_query(1, "word"), "ix_strongest_token_lists_word"),
        (token_query(1, "word", exact=True), "strongest_token_lists"),
        (agreed_tokens_query(1), "features"),
        (strongest_query(1, 5), "ix_features_max_activation"),
        (strongest_query(1, 5), "feature_example_lists"),
    ],
)
def test_words_are_found_by_an_index(stored: tuple[sa.Connection, int], select: sa.Select[Any], index: str) -> None:
    assert_uses_index(stored[0], select, index)
