"""A partition for every extraction on PostgreSQL: queries that look into one, and partitions that are dropped when
nobody can see their rows."""

import re
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from extraction_assets.database import load as load_module
from extraction_assets.database import queries
from extraction_assets.database.backends.postgresql import LOCK_KEY
from extraction_assets.database.backends.postgresql.examples import _drop, drop_emptied, replace_examples
from extraction_assets.database.connect import connect, open_database, write_transaction
from extraction_assets.database.remove import delete_results
from extraction_assets.database.tables import extractions, feature_activations
from extraction_assets.database.urls import DatabaseError
from extraction_assets_tests.database.synthetic import make_examples, make_results
from extraction_assets_tests.postgres import Server


@pytest.fixture
def engine(postgres_url: str) -> Iterator[sa.Engine]:
    engine = open_database(postgres_url)
    yield engine
    engine.dispose()


def _load(engine: sa.Engine, fingerprint: str, activation: float, *, num_features: int = 3, sae: str = "sae") -> int:
    with write_transaction(engine) as connection:
        return make_results(fingerprint, activation, num_features=num_features, sae=sae).load(connection)


def _write(engine: sa.Engine) -> None:
    """A transaction that changes nothing."""
    with write_transaction(engine):
        pass


def _tables(engine: sa.Engine) -> list[str]:
    return sorted(name for name in sa.inspect(engine).get_table_names() if name.startswith("feature_activations_"))


def _vacuum(engine: sa.Engine, table: str, options: str = "") -> None:
    """As autovacuum would: once the server knows of the rows that were deleted, which takes it a moment."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        dead = sa.select(sa.func.pg_stat_get_dead_tuples(sa.func.to_regclass(table)))
        until = time.monotonic() + 60
        while connection.scalar(dead) == 0:
            assert time.monotonic() < until, "the server never heard of the deleted rows"
            time.sleep(0.05)
        connection.exec_driver_sql(f"VACUUM {options} {table}")


def _count(connection: sa.Connection, activation: float) -> int | None:
    own = feature_activations.c.max_activation == activation
    return connection.scalar(sa.select(sa.func.count()).select_from(feature_activations).where(own))


README_BY_FEATURE = """
    SELECT a.rank, round(CAST(a.max_activation AS numeric), 2), a.max_token, s.document_id FROM feature_activations a
    JOIN extractions e ON e.id = a.extraction_id
    JOIN samples s ON s.corpus_id = e.corpus_id AND s.sample_index = a.sample_index
    WHERE a.extraction_id = {id} AND a.neuron_index = 17 ORDER BY a.rank LIMIT 3
"""
README_BY_SAMPLE = """
    SELECT neuron_index, rank, round(CAST(max_activation AS numeric), 2), max_token FROM feature_activations
    WHERE extraction_id = {id} AND sample_index = 42 ORDER BY max_activation DESC LIMIT 3
"""


def _plan(connection: sa.Connection, statement: str) -> str:
    return "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}").scalars())


@pytest.mark.parametrize("analyzed", [False, True])
def test_the_queries_of_the_readme_look_into_one_partition_by_its_indexes(engine: sa.Engine, analyzed: bool) -> None:
    ids = [_load(engine, "a", 1.0, num_features=60, sae=sae) for sae in ("one", "two", "three")]
    with engine.begin() as connection:
        if analyzed:
            connection.exec_driver_sql("ANALYZE")
        for statement, index in (
            (README_BY_FEATURE, "feature_activations_2_pkey"),
            (README_BY_SAMPLE, "ix_feature_activations_2_sample"),
        ):
            plan = _plan(connection, statement.format(id=ids[1]))
            assert f" on {index}" in plan or f" using {index}" in plan, plan
            assert set(re.findall(r" on (feature_activations_\d+)\b", plan)) <= {"feature_activations_2"}, plan
            assert "Seq Scan on feature_activations_" not in plan


def test_what_pages_ask_for_is_found_by_the_primary_key_of_one_partition(engine: sa.Engine) -> None:
    ids = [_load(engine, "a", 1.0, num_features=60, sae=sae) for sae in ("one", "two")]
    asked: list[str] = []
    with engine.connect() as connection:

        @event.listens_for(engine, "before_cursor_execute")
        def note(_connection: object, cursor: sa.engine.interfaces.DBAPICursor, statement: str, *rest: object) -> None:
            if statement.startswith("SELECT"):
                asked.append(cursor.mogrify(statement, rest[0]).decode())  # type: ignore[attr-defined]

        assert len(queries.examples_of(connection, ids[0], 17, limit=3)) == 3
        plan = _plan(connection, asked[0])
    assert "feature_activations_1_pkey" in plan
    assert "feature_activations_2" not in plan


def test_every_extraction_has_a_partition_with_the_key_and_the_index(engine: sa.Engine) -> None:
    _load(engine, "old", 1.0)
    _load(engine, "other", 3.0, sae="other")
    _load(engine, "new", 2.0)
    assert _tables(engine) == ["feature_activations_1", "feature_activations_2"]
    parent = sa.inspect(engine).get_pk_constraint("feature_activations")["constrained_columns"]
    for table in _tables(engine):
        assert sa.inspect(engine).get_pk_constraint(table)["constrained_columns"] == parent
        columns = [index["column_names"] for index in sa.inspect(engine).get_indexes(table)]
        assert columns == [["extraction_id", "sample_index"]]
    with engine.connect() as connection:
        assert [_count(connection, activation) for activation in (1.0, 2.0, 3.0)] == [0, 300, 300]


def test_a_first_load_makes_its_indexes_after_its_rows(engine: sa.Engine) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    _load(engine, "old", 1.0)
    last = [number for number, statement in enumerate(statements) if "feature_activations_1" in statement]
    assert [statements[number].split()[0] for number in last] == ["CREATE", "ALTER", "CREATE", "ALTER"]
    with engine.connect() as connection:
        assert _count(connection, 1.0) == 300


@pytest.mark.slow
@pytest.mark.parametrize("results", [1, 40])
def test_a_query_locks_one_partition_however_many_there_are(engine: sa.Engine, results: int) -> None:
    for number in range(results):
        _load(engine, "a", 1.0, num_features=1, sae=f"sae {number}")
    locked = "SELECT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
    with engine.connect() as connection:
        query = "SELECT * FROM feature_activations WHERE extraction_id = 1 AND neuron_index = 0"
        assert len(connection.exec_driver_sql(query).all()) == 100
        names = connection.exec_driver_sql(locked).scalars().all()
    assert {name for name in names if re.fullmatch(r"feature_activations_\d+", name)} == {"feature_activations_1"}


def test_a_merge_neither_holds_up_readers_nor_waits_for_them(engine: sa.Engine) -> None:
    _load(engine, "old", 1.0)
    with engine.connect() as early:
        assert _count(early, 1.0) == 300
        with write_transaction(engine) as writer:
            writer.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
            make_results("new", 2.0, num_features=3).load(writer)
            with engine.connect() as late:
                late.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
                assert (_count(late, 1.0), _count(late, 2.0)) == (300, 0)
            assert (_count(writer, 1.0), _count(writer, 2.0)) == (0, 300)
        assert (_count(early, 1.0), _count(early, 2.0)) == (300, 0)


def _delete(engine: sa.Engine, sae: str = "sae") -> None:
    with write_transaction(engine) as connection:
        delete_results(connection, "made-up", sae)


def test_an_emptied_partition_stays_while_an_older_snapshot_may_want_its_rows(engine: sa.Engine) -> None:
    """The reader has not looked at the examples before: no lock of its own keeps them."""
    _load(engine, "old", 1.0)
    with engine.connect() as reader:
        assert reader.scalar(sa.select(extractions.c.fingerprint)) == "old"
        _delete(engine)
        _vacuum(engine, "feature_activations_1")
        _write(engine)
        assert _tables(engine) == ["feature_activations_1"]
        assert _count(reader, 1.0) == 300
    _vacuum(engine, "feature_activations_1")
    _write(engine)
    assert _tables(engine) == []
    with engine.connect() as reader:
        assert _count(reader, 1.0) == 0


def test_what_is_deleted_takes_its_partition_along_and_no_other(engine: sa.Engine) -> None:
    _load(engine, "kept", 1.0, sae="kept")
    _load(engine, "gone", 2.0, sae="gone")
    _delete(engine, "gone")
    _vacuum(engine, "feature_activations_2")
    _write(engine)
    assert _tables(engine) == ["feature_activations_1"]
    with engine.connect() as connection:
        assert _count(connection, 1.0) == 300


def test_a_replacement_by_no_examples_leaves_none_and_the_next_brings_them_back(engine: sa.Engine) -> None:
    _load(engine, "old", 1.0)
    with write_transaction(engine) as connection:
        replace_examples(connection, feature_activations, 1, make_examples(1, 2.0, []))
    _vacuum(engine, "feature_activations_1")
    _write(engine)
    assert _tables(engine) == []
    _load(engine, "new", 3.0)
    with engine.connect() as connection:
        assert [_count(connection, activation) for activation in (1.0, 3.0)] == [0, 300]


def test_a_reader_that_holds_an_emptied_partition_holds_no_writer_up(engine: sa.Engine) -> None:
    _load(engine, "gone", 1.0, sae="gone")
    _load(engine, "old", 2.0)
    _delete(engine, "gone")
    _vacuum(engine, "feature_activations_1")
    with engine.connect() as reader:
        assert _count(reader, 2.0) == 300  # it looks into both
        _load(engine, "newer", 3.0)
        assert "feature_activations_1" in _tables(engine)
        assert (_count(reader, 2.0), _count(reader, 3.0)) == (300, 0)
    _write(engine)
    assert _tables(engine) == ["feature_activations_2"]


def test_a_reader_that_comes_just_before_a_partition_is_dropped_keeps_it(engine: sa.Engine) -> None:
    _load(engine, "old", 1.0)
    with engine.connect() as reader:
        assert _count(reader, 1.0) == 300
        _drop(engine, "feature_activations_1")  # gives up instead of waiting for the reader
        assert _count(reader, 1.0) == 300
    _drop(engine, "feature_activations_1")
    assert _tables(engine) == []


def test_a_partition_that_vacuum_could_not_shorten_is_dropped_later(engine: sa.Engine) -> None:
    """Where a reader holds it at that moment, autovacuum takes the rows out but leaves the file as long as it was."""
    _load(engine, "kept", 1.0, sae="kept")
    _load(engine, "gone", 2.0)
    _delete(engine)
    _vacuum(engine, "feature_activations_2", "(TRUNCATE off)")
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as idle:
        assert _count(idle, 1.0) == 300  # has no snapshot between statements, but holds the table
        _write(engine)
        assert "feature_activations_2" in _tables(engine)
    _write(engine)
    assert _tables(engine) == ["feature_activations_1"]


def test_a_partition_that_a_view_reads_stays_and_writers_go_on(engine: sa.Engine) -> None:
    _load(engine, "gone", 1.0)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE VIEW of_one AS SELECT * FROM feature_activations_1")
    _delete(engine)
    _vacuum(engine, "feature_activations_1")
    _write(engine)
    assert _tables(engine) == ["feature_activations_1"]


def test_a_writer_does_not_drop_while_another_is_at_work(engine: sa.Engine) -> None:
    _load(engine, "gone", 1.0)
    _delete(engine)
    _vacuum(engine, "feature_activations_1")
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK_KEY)))
        drop_emptied(engine, LOCK_KEY)
        assert len(_tables(engine)) == 1
    drop_emptied(engine, LOCK_KEY)
    assert _tables(engine) == []
    _load(engine, "newer", 3.0)  # nobody holds the lock


def test_a_load_that_fails_leaves_no_partition(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    _load(engine, "old", 1.0)
    monkeypatch.setattr(load_module, "_add_samples", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _load(engine, "new", 2.0)
    assert _tables(engine) == ["feature_activations_1"]
    with pytest.raises(ZeroDivisionError):
        _load(engine, "another", 2.0, sae="another")
    assert _tables(engine) == ["feature_activations_1"]


@pytest.mark.parametrize(
    ("stored", "ranks", "named", "reason"),
    [
        (1, [0, 1, 0], 1, "feature_activations_1_pkey"),
        (2, [0, 1, 0], 2, "feature_activations_2_pkey"),
        (1, [0], 2, 'relation "feature_activations_1" violates .*constraint'),
        (2, [0], 1, "feature_activations_2_extraction_id_check"),
    ],
)
def test_a_key_that_comes_twice_and_a_wrong_extraction_are_refused(
    engine: sa.Engine, stored: int, ranks: list[int], named: int, reason: str
) -> None:
    """In a partition that is there (1), and in one that is made (2)."""
    _load(engine, "old", 1.0)
    with pytest.raises(Exception, match=reason), write_transaction(engine) as connection:
        replace_examples(connection, feature_activations, stored, make_examples(named, 1.0, ranks))
    with engine.connect() as connection:
        assert _count(connection, 1.0) == 300


def test_no_examples_need_no_partition(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        replace_examples(connection, feature_activations, 1, make_examples(1, 1.0, []))
    assert _tables(engine) == []


def test_a_role_that_does_not_own_the_tables_gets_one_sentence(postgres_server: Server, postgres_url: str) -> None:
    open_database(postgres_url).dispose()
    name = postgres_url.rpartition("/")[2]
    for statement in (
        f"CREATE ROLE {name}_writer LOGIN PASSWORD 'writer-secret'",
        f"GRANT ALL ON SCHEMA public TO {name}_writer",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}_writer",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}_writer",
    ):
        postgres_server.execute(statement, name)
    engine = connect(f"postgresql://{name}_writer:writer-secret@127.0.0.1:{postgres_server.port}/{name}")
    with pytest.raises(DatabaseError, match=r"cannot be used: must be owner of table feature_activations$"):
        _load(engine, "new", 2.0)
    engine.dispose()
