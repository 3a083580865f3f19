"""Who speaks where, in both databases: stored with the samples of chats, deleted with them, absent before."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database, write_transaction
from extraction_assets.database.queries.examples import examples_of
from extraction_assets.database.queries.words import role_counts, role_query
from extraction_assets.database.tables import sample_messages, samples
from extraction_assets.database.writing.feature_examples import replace_results
from extraction_assets.database.writing.remove import count_results, delete_results
from extraction_assets.database.writing.samples import CorpusSamples
from extraction_assets.engine.corpora.message_spans import MessageSpan, SampleMessages
from extraction_assets_tests.database import kinds
from extraction_assets_tests.database.earlier import before_lists
from extraction_assets_tests.database.plans import assert_uses_index
from extraction_assets_tests.database.synthetic import CORPUS, NUM_SAMPLES, make_results, store_examples
from extraction_assets_tests.database.test_migrations import at_revision
from extraction_assets_tests.postgres import Server

DOCS = Path(__file__).parents[3] / "docs" / "database.md"


def chats(first_role: str = "user") -> CorpusSamples:
    """The made-up corpus as chats: in sample n two messages, at positions 1 and 2 and from 4 on, in even n one."""
    counts = 1 + np.arange(NUM_SAMPLES) % 2
    offsets = np.concatenate([[0], np.cumsum(counts)])
    spans = np.tile(np.array([[1, 4, 8]], dtype=np.int32), (offsets[-1], 1))
    spans[offsets[:-1]] = 0, 1, 3
    messages = SampleMessages(offsets, spans, [first_role, "assis\0tant"])
    return CORPUS._replace(messages=messages, content_fingerprint=lambda count: f"{count} {first_role}")


def load(connection: sa.Connection, corpus: CorpusSamples, sae: str = "sae", features: int = 8) -> int:
    made = make_results("f", 1.0, num_features=features, top_k=1, sae=sae)
    return replace_results(
        connection, made.extraction, corpus, made.table, made.statistics, lambda ids: [f"t{one}" for one in ids]
    )


@pytest.fixture
def engine(results_url: str) -> Iterator[sa.Engine]:
    engine = open_database(results_url)
    yield engine
    engine.dispose()


def count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_an_example_says_who_speaks_in_its_sample(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        number = load(connection, chats())
    with engine.connect() as connection:
        (odd,), (even,) = (examples_of(connection, number, feature) for feature in (1, 2))
    assert (odd.sample_index, even.sample_index) == (7919, 15838)
    assert odd.messages == (MessageSpan("user", 1, 3), MessageSpan("assis\\x00tant", 4, 8))
    assert even.messages == (MessageSpan("user", 1, 3),)


def test_messages_are_numbered_from_0_in_each_sample(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        load(connection, chats(), features=3)
        said = sample_messages.c
        stored = connection.execute(sa.select(said.sample_index, said.number).order_by(said.sample_index, said.number))
        assert [tuple(row) for row in stored] == [(0, 0), (7919, 0), (7919, 1), (15838, 0)]


def test_an_example_of_text_says_nothing_of_who_speaks(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        number = load(connection, CORPUS)
        assert examples_of(connection, number, 1)[0].messages == ()
        assert role_counts(connection, number).empty


def test_messages_go_with_their_samples(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        load(connection, chats())
        load(connection, chats(), features=4)
        there = connection.scalars(sa.select(sample_messages.c.sample_index).distinct()).all()
        assert sorted(there) == sorted(connection.scalars(sa.select(samples.c.sample_index)))
        assert len(there) == 4
        delete_results(connection, "made-up")
        assert count(connection, sample_messages) == 0


def test_samples_that_another_sae_names_keep_their_messages(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        load(connection, chats(), "one", features=4)
        load(connection, chats(), "two", features=8)
        assert count(connection, sample_messages) == 12
        delete_results(connection, "made-up", "two")
        assert count(connection, sample_messages) == 6


@pytest.mark.parametrize("sae", [None, "two"])
def test_the_rows_that_go_are_counted_with_their_messages(engine: sa.Engine, sae: str | None) -> None:
    with write_transaction(engine) as connection:
        load(connection, chats(), "one", features=4)
        load(connection, chats(), "two", features=8)
        tables = (samples, sample_messages)
        before = {table.name: count(connection, table) for table in tables}
        counted = count_results(connection, "made-up", sae)
        delete_results(connection, "made-up", sae)
        gone = {table.name: before[table.name] - count(connection, table) for table in tables}
    assert {name: counted[name] for name in gone} == gone


def test_other_roles_of_the_same_tokens_replace_those_before(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        load(connection, chats("human"))
        number = load(connection, chats("user"))
        assert examples_of(connection, number, 1)[0].messages[0].role == "user"
        assert count(connection, sample_messages) == 12


def test_features_are_counted_by_who_speaks_at_their_strongest_token(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        number = load(connection, chats())
        found = role_counts(connection, number)
    # Feature f fires at position f of sample 7919 f: positions 0 and 3 are the template's, so are 4 and 6 of even ones.
    assert found.to_dict("index") == {
        1: {"assis\\x00tant": 0, "user": 1},
        2: {"assis\\x00tant": 0, "user": 1},
        5: {"assis\\x00tant": 1, "user": 0},
        7: {"assis\\x00tant": 1, "user": 0},
    }


def test_the_documented_query_by_role_gives_the_same(engine: sa.Engine) -> None:
    (query,) = re.findall(r"```sql\n([^;]*FROM feature_roles[^;]*);", DOCS.read_text("utf-8"))
    with write_transaction(engine) as connection:
        number = load(connection, chats("assistant"))
        rows = connection.execute(sa.text(query)).all()
        assert rows == connection.execute(role_query(number, "assistant")).all()
        assert_uses_index(connection, role_query(number, "assistant"), "feature_roles")
    assert [tuple(row) for row in rows] == [(1, 1), (2, 1)]


@kinds.empty_sql
def test_a_migration_counts_the_roles_of_earlier_results(empty_url: str) -> None:
    engine = at_revision(empty_url, "0005")
    with write_transaction(engine) as connection:
        store_examples(connection, before_lists, 1, 1.0, count=3)  # all at position 1 of sample 42
        for number, (start, stop) in enumerate([(0, 1), (1, 2)]):
            said = {"sample_index": 42, "number": number, "role": f"r{number}", "start": start, "stop": stop}
            connection.execute(sa.insert(sample_messages).values(corpus_id=1, **said))
    engine.dispose()
    engine = open_database(empty_url)
    with engine.connect() as connection:
        assert role_counts(connection, 1).to_dict("index") == {5: {"r1": 3}}
    engine.dispose()


@kinds.empty_sql
def test_results_of_an_earlier_version_are_shown_without_roles(empty_url: str) -> None:
    engine = at_revision(empty_url, "0004")
    with write_transaction(engine) as connection:
        store_examples(connection, before_lists, 1, 1.0, count=1)
        row = {"sample_index": 42, "document_id": "d", "first_token": 0, "token_ids": [0, 1], "tokens": ["a", "b"]}
        connection.execute(sa.insert(samples).values(corpus_id=1, **row))
    engine.dispose()
    engine = open_database(empty_url)
    with engine.connect() as connection:
        assert count(connection, sample_messages) == 0
        assert examples_of(connection, 1, 5)[0].messages == ()
    engine.dispose()


def test_a_role_that_may_read_samples_may_read_who_speaks(postgres_server: Server, postgres_url: str) -> None:
    at_revision(postgres_url, "0004").dispose()
    name = postgres_url.rpartition("/")[2] + "_reader"
    postgres_server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'reader-secret'")
    engine = sa.create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"GRANT SELECT ON samples TO {name}")
    open_database(postgres_url).dispose()
    with engine.connect() as connection:
        asked = f"SELECT has_table_privilege('{name}', 'sample_messages', '%%')"
        assert connection.exec_driver_sql(asked.replace("%%", "SELECT")).scalar() is True
        assert connection.exec_driver_sql(asked.replace("%%", "INSERT")).scalar() is False
    engine.dispose()
