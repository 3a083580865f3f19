"""Samples by their text: with the index and without, whatever stands in the text that is looked for."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from extraction_assets.database.backends import backend_of
from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.queries.texts import samples_with_text, text_is_indexed, text_query
from extraction_assets.database.tables import extractions, relations
from extraction_assets.database.writing import text_index
from extraction_assets.database.writing.feature_examples import replace_results
from extraction_assets.database.writing.remove import delete_results
from extraction_assets.database.writing.text_index import index_texts, index_texts_again
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.plans import plan_of
from extraction_assets_tests.database.synthetic import CORPUS, make_results

TOKENS = ["The ", '"quoted" AND ', "naïve ÜBER ", "100% _x_ ", "back\\slash* ", "NEAR(a b) ", "<script>", "'; DROP"]


@pytest.fixture(params=["indexed", "scanned"])
def engine(results_url: str, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    yield from _stored(results_url, request.param == "indexed")


@pytest.fixture(scope="module", params=["indexed", "scanned"])
def read_only(shared_results_url: str, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    yield from _stored(shared_results_url, request.param == "indexed")


def _stored(url: str, indexed: bool) -> Iterator[sa.Engine]:
    """Samples 0, 1, 2 of a corpus, of which sample i begins with token i; another extraction names sample 3."""
    engine = open_database(url)
    rows = [[(sample + place) % 8 for place in range(8)][: 8 if sample < 3 else 3] for sample in range(4)]
    for sae, named in (("sae", [0, 1, 2]), ("other", [3])):
        made = make_results("f", 1.0, num_features=len(named), top_k=1, sae=sae)
        table = made.table._replace(sample_index=made.table.sample_index.new_tensor(named))
        corpus = CORPUS._replace(token_ids=CORPUS.token_ids.copy(), attention_mask=CORPUS.attention_mask.copy())
        for sample, row in enumerate(rows):
            corpus.token_ids[sample, : len(row)] = row
            corpus.attention_mask[sample, len(row) :] = False
        with write_transaction(engine) as connection:
            replace_results(connection, made.extraction, corpus, table, made.statistics, _display)
    if indexed:
        _index(engine)
    yield engine
    engine.dispose()


def _display(ids: list[int]) -> list[str]:
    return [TOKENS[token] for token in ids]


def _index(engine: sa.Engine) -> None:
    """As the asset of relations does."""
    index_texts(engine)
    with write_transaction(engine) as connection:
        connection.execute(sa.delete(relations))
        row = {"fingerprint": "r", "scope": "sample", "sample_one_in": 16, "sample_count": 1, "token_count": 1}
        for number, merged in connection.execute(sa.select(extractions.c.id, extractions.c.fingerprint)).all():
            at = sa.func.now() if engine.dialect.name == "postgresql" else sa.func.current_timestamp()
            connection.execute(
                sa.insert(relations).values(extraction_id=number, merge_fingerprint=merged, finished_at=at, **row)
            )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the", [0, 1, 2]),
        ('THE "QUOTED" and N', [0]),
        ('"quoted" AND naïve', [0, 1]),
        ("100% _X_", [0, 1, 2]),
        ("100%%_", []),
        ("k\\Slash*", [0, 1, 2]),
        ("near(A b) <SCRIPT>'; drop", [0, 1, 2]),
        ("'; DROPThe ", [1, 2]),
        ("quoted OR naïve", []),
        ("*", [0, 1, 2]),
        ("%", [0, 1, 2]),
        ("é", []),
    ],
)
def test_a_text_is_found_as_it_is_written_whatever_the_case(read_only: sa.Engine, text: str, found: list[int]) -> None:
    with read_only.connect() as connection:
        assert samples_with_text(connection, 1, text) == found


@kinds.sql
def test_the_index_says_what_it_is_used_for(engine: sa.Engine, request: pytest.FixtureRequest) -> None:
    with engine.connect() as connection:
        indexed = text_is_indexed(connection, 1)
        plan = plan_of(connection, text_query(connection, 1, "script"))
    assert ("sample_text" in plan) == indexed
    assert indexed == ("indexed" in request.node.callspec.id)


def test_an_index_that_an_earlier_result_had_is_not_used(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        connection.execute(sa.update(extractions).values(fingerprint="later"))
        assert not text_is_indexed(connection, 1)


@kinds.sql
def test_samples_are_added_to_the_index_in_several_transactions(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_index, "_AT_ONCE", 1)
    with write_transaction(engine) as connection:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {_table(connection)}")
    added: list[int] = []
    index_texts(engine, added.append)
    assert added == [1, 1, 1, 1, 0]


def _table(connection: sa.Connection) -> str:
    return {"sqlite": "sample_text", "postgresql": "sample_texts"}[connection.dialect.name]


def test_the_texts_of_a_corpus_go_with_it(engine: sa.Engine) -> None:
    """SQLite gives its number to another corpus, whose samples have other texts."""
    with write_transaction(engine) as connection:
        delete_results(connection, "made-up")
        assert not backend_of(connection).text_index.holds(connection, 1, 0)


@kinds.sql
def test_another_corpus_keeps_its_search_when_one_goes(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        corpus = CORPUS._replace(token_ids=CORPUS.token_ids.copy(), source="another")
        made = make_results("g", 1.0, num_features=1, top_k=1, sae="third")
        named = made.extraction._replace(name="another")
        replace_results(connection, named, corpus, made.table, made.statistics, _display)
    _index(engine)
    with write_transaction(engine) as connection:
        delete_results(connection, "made-up")
    index_texts_again(engine)
    with engine.connect() as connection:
        number = connection.scalar(sa.select(extractions.c.id))
        assert text_is_indexed(connection, number)
        assert samples_with_text(connection, number, 'the "quoted"') == [0]


@kinds.sql
def test_an_index_that_is_being_made_again_is_not_used_before_it_has_all(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {_table(connection)}")
        backend_of(connection).text_index.index_some(connection, 2)  # of samples 0 to 3
        assert backend_of(connection).text_index.holds(connection, 1, 1)
        assert not text_is_indexed(connection, 1)
        assert samples_with_text(connection, 1, "the") == [0, 1, 2]


def test_without_the_extension_texts_are_searched_without_an_index(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extraction_assets.database.backends.postgresql.text_index._has_trigrams", lambda _: False)
    engine = open_database(postgres_url)
    with write_transaction(engine) as connection:
        make_results("f", 1.0, num_features=1, top_k=1).load(connection)
    _index(engine)
    with engine.connect() as connection:
        assert not text_is_indexed(connection, 1)
        assert samples_with_text(connection, 1, "T1t2") == [0]
    engine.dispose()
