"""The results database: migrations, exact values, transactions that readers never see half of."""

import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from extraction_assets.database.connect import connect, open_database, write_transaction
from extraction_assets.database.migrations.upgrade import upgrade
from extraction_assets.database.queries.examples import examples_of, find_feature
from extraction_assets.database.queries.extractions import UnknownResultError, find_extraction
from extraction_assets.database.queries.frames import feature_table, list_extractions
from extraction_assets.database.queries.words import readable_features
from extraction_assets.database.tables import corpora, metadata
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.synthetic import make_results
from extraction_assets_tests.project import Project

CORPUS = {
    "fingerprint": "f",
    "sample_count": 2**40,
    "start_sample": 0,
    "source": "s",
    "tokenizer": "t",
    "packing": "documents",
}


@kinds.empty_sql
def test_migrations_make_the_tables_that_the_code_declares(empty_url: str) -> None:
    engine = connect(empty_url)
    with write_transaction(engine) as connection:
        upgrade(connection)
        make_results("stored", 1.0, num_features=1).load(connection)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_opening_twice_changes_nothing(empty_url: str) -> None:
    for _ in range(2):
        engine = open_database(empty_url)
        with write_transaction(engine) as connection:
            connection.execute(sa.insert(corpora).values(CORPUS))
        engine.dispose()
    engine = open_database(empty_url)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(corpora)) == 2
        assert connection.scalar(sa.select(corpora.c.sample_count)) == 2**40
    engine.dispose()


def test_an_error_rolls_everything_back(results_url: str) -> None:
    engine = open_database(results_url)
    with pytest.raises(RuntimeError), write_transaction(engine) as connection:
        connection.execute(sa.insert(corpora).values(CORPUS))
        raise RuntimeError
    with engine.connect() as connection:
        assert connection.execute(sa.select(corpora)).all() == []
    engine.dispose()


def test_a_reader_sees_the_old_rows_until_the_writer_commits(results_url: str) -> None:
    engine = open_database(results_url)
    with write_transaction(engine) as writer:
        writer.execute(sa.insert(corpora).values(CORPUS))
        with engine.connect() as reader:
            assert reader.execute(sa.select(corpora)).all() == []
    with engine.connect() as reader:
        assert len(reader.execute(sa.select(corpora)).all()) == 1
    engine.dispose()


def test_a_second_writer_waits_for_the_first(results_url: str) -> None:
    engine = open_database(results_url)
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with write_transaction(engine) as connection:
            order.append("second")
            connection.execute(sa.insert(corpora).values(CORPUS))

    with write_transaction(engine) as connection:
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        connection.execute(sa.insert(corpora).values(CORPUS))
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    engine.dispose()


@pytest.mark.slow
def test_two_merges_at_once_keep_all_their_rows(tokenized: Project) -> None:
    project = tokenized
    project.chunks()
    others = [Project(project.settings, project.home) for _ in range(2)]
    pairs = zip(others, ("relu", "topk"), strict=True)
    threads = [threading.Thread(target=other.merge, args=(sae,)) for other, sae in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert project.rows("SELECT sae FROM extractions ORDER BY 1") == [("relu",), ("topk",)]
    named = "SELECT DISTINCT sample_index FROM feature_activations ORDER BY 1"
    assert project.rows("SELECT sample_index FROM samples ORDER BY 1") == project.rows(named)


@pytest.mark.slow
def test_queries_give_people_what_they_ask_for(project: Project) -> None:
    engine = open_database(project.url)
    with engine.connect() as connection:
        extraction = find_extraction(connection, "tiny", "topk")
        assert list(list_extractions(connection)["sae"]) == ["relu", "topk"]
        table = feature_table(connection, extraction.id)
        strongest = int(table["max_activation"].idxmax())
        examples = examples_of(connection, extraction.id, strongest, limit=3)
        assert [example.rank for example in examples] == [0, 1, 2]
        assert examples[0].tokens[examples[0].positions[0]] == examples[0].max_token
        assert examples[0].activations[0] == examples[0].max_activation == table["max_activation"].max()
        assert len(readable_features(connection, extraction.id, 4)) == 4
        with pytest.raises(UnknownResultError, match="choose one SAE of extraction 'tiny': relu, topk"):
            find_extraction(connection, "tiny")
        with pytest.raises(UnknownResultError, match="numbered from 0 to 47"):
            find_feature(connection, extraction.id, 48)
        with pytest.raises(UnknownResultError, match="no merged results of extraction 'none'"):
            find_extraction(connection, "none")
    engine.dispose()
