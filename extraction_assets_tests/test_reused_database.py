"""What a test leaves in the database that tests share is not there for the next."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database
from extraction_assets.database.tables import corpora
from extraction_assets_tests.database.test_database import CORPUS
from extraction_assets_tests.postgres import Server
from extraction_assets_tests.reused_database import ReusedDatabase

pytestmark = pytest.mark.slow


@pytest.fixture
def database(postgres_server: Server) -> Iterator[ReusedDatabase]:
    made = ReusedDatabase(postgres_server)
    yield made
    postgres_server.drop_database(made.take())


def _run(url: str, *statements: str) -> sa.Engine:
    """Its connection stays open."""
    engine = open_database(url)
    connection = engine.connect()
    for statement in statements:
        connection.exec_driver_sql(statement)
    connection.commit()
    return engine


def test_rows_and_the_numbers_given_to_them_go(database: ReusedDatabase) -> None:
    first = database.take()
    for _ in range(2):
        engine = open_database(database.take())
        with engine.begin() as connection:
            assert connection.execute(sa.insert(corpora).values(CORPUS)).inserted_primary_key == (1,)
        database.give_back()
        engine.dispose()
    assert database.take() == first


def test_what_a_query_is_planned_by_goes(database: ReusedDatabase) -> None:
    pages = "SELECT relname, relpages, reltuples FROM pg_class WHERE relname = 'corpora'"
    with open_database(database.take()).connect() as connection:
        before = connection.exec_driver_sql(pages).all()
    engine = open_database(database.take())
    with engine.begin() as connection:
        connection.execute(sa.insert(corpora).values(CORPUS))
        connection.exec_driver_sql("ANALYZE")
        assert connection.exec_driver_sql(pages).all() != before
    database.give_back()
    with open_database(database.take()).connect() as connection:
        assert connection.exec_driver_sql(pages).all() == before


@pytest.mark.parametrize(
    "change",
    [
        "CREATE INDEX more ON samples (first_token)",
        "ALTER TABLE corpora ADD COLUMN language text",
        "DROP VIEW feature_draws",
        "CREATE SCHEMA other",
        "COMMENT ON TABLE corpora IS 'mine'",
        "ALTER TABLE corpora ALTER source SET STORAGE EXTERNAL",
        "CREATE EXTENSION pg_trgm",
        "GRANT SELECT ON corpora TO PUBLIC",
    ],
)
def test_after_a_change_of_the_schema_there_is_another_database(database: ReusedDatabase, change: str) -> None:
    url = database.take()
    _run(url, change)
    database.give_back()
    assert database.take() != url


def test_a_connection_that_is_left_open_in_a_transaction_is_ended(database: ReusedDatabase) -> None:
    engine = open_database(database.take())
    connection = engine.connect()
    connection.exec_driver_sql("LOCK TABLE corpora IN ACCESS EXCLUSIVE MODE")
    database.give_back()
    with pytest.raises(sa.exc.OperationalError):
        connection.exec_driver_sql("SELECT 1")
