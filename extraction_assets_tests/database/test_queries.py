"""Features by the token that they fire on most strongly, on both databases."""

import sqlite3
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from extraction_assets.database import queries
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.load import replace_results
from extraction_assets_tests.database.synthetic import CORPUS, make_results

# Two examples for each of five features; the strongest token of example number i has id i modulo 8.
TOKENS = [" import", "import", "import\n", "Import", "12", "\n", "import", " exports"]


@pytest.fixture
def stored(results_url: str) -> Iterator[tuple[sa.Connection, int]]:
    """A connection to results in which feature f has maximum f + 1, and their id."""
    made = make_results("f", 1.0, num_features=5, top_k=2)
    activations = (made.table.neuron_index + 1).float()
    table = made.table._replace(max_activation=activations, activations=activations)
    engine = open_database(results_url)

    def display(ids: list[int]) -> list[str]:
        return [TOKENS[token] for token in ids]

    with write_transaction(engine) as connection:
        number = replace_results(connection, made.extraction, CORPUS, table, made.statistics, display)
    with engine.connect() as connection:
        yield connection, number
    engine.dispose()


def test_the_feature_with_most_such_examples_comes_first_then_the_stronger_one(
    stored: tuple[sa.Connection, int],
) -> None:
    assert queries.features_of_token(*stored, "import") == [4, 0, 3, 1]
    assert queries.features_of_token(*stored, " import \n") == [4, 0, 3, 1]


@pytest.mark.parametrize(
    ("token", "features"), [("import", [4, 3, 0]), (" import", [4, 0]), ("import\n", [1]), ("\n", [2])]
)
def test_exact_takes_spaces_as_they_are(stored: tuple[sa.Connection, int], token: str, features: list[int]) -> None:
    assert queries.features_of_token(*stored, token, exact=True) == features


def test_case_counts(stored: tuple[sa.Connection, int]) -> None:
    assert queries.features_of_token(*stored, "Import") == [1]


def test_a_line_break_alone_is_a_token_too(stored: tuple[sa.Connection, int]) -> None:
    assert queries.features_of_token(*stored, "\n") == [2]


@pytest.mark.parametrize(("token", "near"), [("IMPORT", "there are 'import'"), ("imprt", "there are 'import'")])
def test_where_no_feature_has_it_near_words_are_named(stored: tuple[sa.Connection, int], token: str, near: str) -> None:
    with pytest.raises(queries.UnknownResultError, match=f"no feature has '{token}' as .*; {near}$"):
        queries.features_of_token(*stored, token)


def test_only_the_strongest_examples_are_looked_at(
    stored: tuple[sa.Connection, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "LOOKED_AT", 1)
    assert queries.features_of_token(*stored, "import") == [4, 3, 1, 0]
    with pytest.raises(queries.UnknownResultError, match=r"strongest examples$"):
        queries.features_of_token(*stored, "Zzzz")


def test_a_number_that_no_database_holds_is_no_feature(stored: tuple[sa.Connection, int]) -> None:
    with pytest.raises(queries.UnknownResultError, match="features are numbered from 0 to 4"):
        queries.find_feature(*stored, 10**30)


def test_sqlite_finds_the_strongest_examples_by_the_whole_primary_key(tmp_path: object) -> None:
    """Without the features' numbers it would read every example of the extraction."""
    engine = open_database(f"sqlite:///{tmp_path}/results.sqlite")
    query = sa.select(sa.literal(1)).where(*queries._strongest(1)).select_from(queries.feature_activations)
    with engine.connect() as connection:
        text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    engine.dispose()
    assert "SEARCH feature_activations USING PRIMARY KEY (extraction_id=? AND neuron_index=? AND rank<?)" in plan


@pytest.mark.parametrize("exact", [True, False])
def test_an_empty_token_is_refused(stored: tuple[sa.Connection, int], exact: bool) -> None:
    with pytest.raises(queries.UnknownResultError, match=r"^a token has at least one character"):
        queries.features_of_token(*stored, "", exact=exact)


def test_what_is_not_text_is_no_token(stored: tuple[sa.Connection, int]) -> None:
    with pytest.raises(queries.UnknownResultError, match=r"^'\\udcff' is not UTF-8 text, so that no token is like it$"):
        queries.features_of_token(*stored, "\udcff")


def test_features_that_agree_on_a_word_come_first_and_no_word_twice(stored: tuple[sa.Connection, int]) -> None:
    # 0 shows "import", 1 "Import" and 3 "exports"; 4 has "import" again and 2 no word: the stronger of them is first.
    assert queries.readable_features(*stored, 2) == [0, 1]
    assert queries.readable_features(*stored, 9) == [0, 1, 3, 4, 2]


@pytest.mark.parametrize("shown", [1, 40])
def test_readable_features_reads_no_more_rows_than_it_has_to(shown: int) -> None:
    made = make_results("f", 1.0, num_features=500, top_k=1)  # its tokens t0, t1, … are no words
    engine = open_database("sqlite://")
    with write_transaction(engine) as connection:
        number = made.load(connection)
        read: list[sqlite3.Row] = []
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.row_factory = lambda _cursor, row: read.append(row) or row
        assert queries.readable_features(connection, number, shown) == list(range(shown))
        driver.row_factory = None
    assert len(read) == 500 + shown
    engine.dispose()
