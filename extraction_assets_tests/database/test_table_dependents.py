"""Migration 0003 on PostgreSQL: what people put on ``feature_activations`` goes over to the new table, or is named."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa

from extraction_assets.database.connect import open_database
from extraction_assets.database.errors import DatabaseError
from extraction_assets_tests.database.test_migrations import at_revision
from extraction_assets_tests.database.test_partitioning import MIGRATED, STRONGEST, _rows, before
from extraction_assets_tests.postgres import Server

__all__ = ["before"]

Put = Callable[[str], object]


@pytest.fixture
def put(before: sa.Engine, postgres_server: Server, postgres_url: str) -> Put:
    """Runs a statement of the server's superuser in the database of revision 0002; ``ROLE`` is a role's name."""
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"CREATE ROLE {name}_other LOGIN PASSWORD 'secret'")
    postgres_server.execute(f"CREATE ROLE {name}_owner LOGIN PASSWORD 'secret'")
    return lambda statement: postgres_server.execute(statement.replace("ROLE", f"{name}_other"), name)


REFUSED = {
    "policy": (
        ["CREATE POLICY first ON feature_activations USING (extraction_id = 1)"],
        ["ALTER TABLE feature_activations ENABLE ROW LEVEL SECURITY"],
        "policy first on table feature_activations; row-level security of table feature_activations",
        ["DROP POLICY first ON feature_activations", "ALTER TABLE feature_activations DISABLE ROW LEVEL SECURITY"],
    ),
    "row security of a load": (
        ["ALTER TABLE feature_activations_2_1 ENABLE ROW LEVEL SECURITY"],
        ["ALTER TABLE feature_activations_2_1 FORCE ROW LEVEL SECURITY"],
        "row-level security of table feature_activations_2_1",
        ["ALTER TABLE feature_activations_2_1 DISABLE ROW LEVEL SECURITY"],
    ),
    "materialized view": (
        ["CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM feature_activations"],
        [],
        "materialized view counts",
        ["DROP MATERIALIZED VIEW counts"],
    ),
    "function": (
        ["CREATE FUNCTION weak() RETURNS SETOF feature_activations LANGUAGE sql AS 'TABLE feature_activations'"],
        [],
        "function weak()",
        ["DROP FUNCTION weak"],
    ),
    "trigger": (
        ["CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"],
        ["CREATE TRIGGER seen AFTER INSERT ON feature_activations EXECUTE FUNCTION nothing()"],
        "trigger seen on table feature_activations",
        ["DROP TRIGGER seen ON feature_activations"],
    ),
    "rule": (
        ["CREATE RULE none AS ON DELETE TO feature_activations WHERE OLD.rank = 77 DO INSTEAD NOTHING"],
        [],
        "rule none on table feature_activations",
        ["DROP RULE none ON feature_activations"],
    ),
    "constraint": (
        ["ALTER TABLE feature_activations ADD CONSTRAINT small CHECK (rank < 1000)"],
        ["CREATE UNIQUE INDEX alone ON feature_activations (neuron_index, extraction_id, rank)"],
        "constraint small on table feature_activations; index alone",
        ["ALTER TABLE feature_activations DROP CONSTRAINT small", "DROP INDEX alone"],
    ),
    "table that inherits": (
        ["CREATE TABLE theirs () INHERITS (feature_activations)"],
        [],
        "table theirs",
        ["DROP TABLE theirs"],
    ),
    "view of rows": (
        ["CREATE VIEW whole AS SELECT f FROM feature_activations f"],
        [],
        "column f of view whole",
        ["DROP VIEW whole"],
    ),
    "view of an emptied load": (
        ["CREATE VIEW empty AS SELECT * FROM feature_activations_1_1"],
        [],
        "view empty of table feature_activations_1_1, which is empty",
        ["DROP VIEW empty"],
    ),
}


@pytest.mark.parametrize(("first", "then", "named", "drop"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_go_over_is_named_and_nothing_is_changed(
    before: sa.Engine, put: Put, postgres_url: str, first: list[str], then: list[str], named: str, drop: list[str]
) -> None:
    for statement in first + then:
        put(statement)
    rows = _rows(before, STRONGEST)
    with pytest.raises(DatabaseError) as raised:
        open_database(postgres_url)
    assert f"cannot go over to the new table: {named}. Nothing was changed: keep the definitions" in str(raised.value)
    assert _rows(before, STRONGEST) == rows
    for statement in drop:
        put(statement)
    at_revision(postgres_url, "0003").dispose()
    assert _rows(before, STRONGEST) == MIGRATED


def test_a_view_that_this_role_may_not_replace_is_named(
    before: sa.Engine, put: Put, postgres_server: Server, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    for statement in (
        "CREATE SCHEMA theirs AUTHORIZATION ROLE",
        "CREATE VIEW theirs.all_rows AS SELECT * FROM feature_activations",
        "ALTER VIEW theirs.all_rows OWNER TO ROLE",
        f"ALTER DATABASE {name} OWNER TO {name}_owner",
        f"GRANT ALL ON SCHEMA public TO {name}_owner",
        f"DO $$DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = "
        f"'public'::regnamespace LOOP EXECUTE 'ALTER TABLE ' || t || ' OWNER TO {name}_owner'; END LOOP; END$$",
    ):
        put(statement)
    with pytest.raises(DatabaseError, match=r"new table: view theirs\.all_rows\. Nothing was changed"):
        open_database(f"postgresql://{name}_owner:secret@127.0.0.1:{postgres_server.port}/{name}")


def test_indexes_of_people_go_over_with_their_names(before: sa.Engine, put: Put, postgres_url: str) -> None:
    for table in ("feature_activations", "feature_activations_2_1"):
        put(f"CREATE INDEX {table}_strong ON {table} (max_activation DESC) WHERE rank = 0")
        put(f"CREATE INDEX {table}_token ON {table} (max_token)")
    at_revision(postgres_url, "0003").dispose()
    assert _rows(before, STRONGEST) == MIGRATED
    indexes = "SELECT indexname FROM pg_indexes WHERE tablename = '{}' ORDER BY 1"
    (key, strong, token, sample) = _rows(before, indexes.format("feature_activations"))
    assert (strong, token) == (("feature_activations_strong",), ("feature_activations_token",))
    assert (key, sample) == (("feature_activations_pkey",), ("ix_feature_activations_sample",))
    assert ("feature_activations_2_1_strong",) in _rows(before, indexes.format("feature_activations_2"))
    assert len(_rows(before, indexes.format("feature_activations_1"))) == 4, "they hold in every partition"


def test_options_of_views_go_over(before: sa.Engine, put: Put, postgres_url: str) -> None:
    put(
        "CREATE VIEW seen WITH (security_barrier) AS SELECT * FROM feature_activations "
        "WHERE max_token LIKE 't%' WITH LOCAL CHECK OPTION"
    )
    options = "SELECT reloptions FROM pg_class WHERE relname = 'seen'"
    old = _rows(before, options)
    at_revision(postgres_url, "0003").dispose()
    assert _rows(before, options) == old == [(["security_barrier=true", "check_option=local"],)]
    assert len(_rows(before, "SELECT * FROM seen")) == len(_rows(before, "SELECT * FROM feature_activations"))


def test_grants_on_columns_and_comments_go_over(before: sa.Engine, put: Put, postgres_url: str) -> None:
    put("GRANT SELECT (rank, max_token) ON feature_activations TO ROLE")
    put("COMMENT ON TABLE feature_activations IS 'it''s 100 %'")
    put("COMMENT ON COLUMN feature_activations.rank IS 'from 0'")
    at_revision(postgres_url, "0003").dispose()
    role, table = f"{postgres_url.rpartition('/')[2]}_other", "'feature_activations'"
    columns = f"SELECT attname FROM pg_attribute WHERE attrelid = {table}::regclass AND attacl IS NOT NULL ORDER BY 1"
    assert _rows(before, columns) == [("max_token",), ("rank",)]
    assert _rows(before, f"SELECT has_column_privilege('{role}', {table}, 'rank', 'SELECT')") == [(True,)]
    assert _rows(before, f"SELECT has_table_privilege('{role}', {table}, 'SELECT')") == [(False,)]
    comments = f"SELECT obj_description({table}::regclass), col_description({table}::regclass, 3)"
    assert _rows(before, comments) == [("it's 100 %", "from 0")]


def test_default_privileges_do_not_open_the_new_table(before: sa.Engine, put: Put, postgres_url: str) -> None:
    put("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO ROLE")
    at_revision(postgres_url, "0003").dispose()
    role = f"{postgres_url.rpartition('/')[2]}_other"
    assert _rows(before, f"SELECT has_table_privilege('{role}', 'feature_activations', 'SELECT')") == [(False,)]


def test_a_table_in_the_way_of_a_partition_is_named(before: sa.Engine, put: Put, postgres_url: str) -> None:
    put("CREATE TABLE feature_activations_2 (theirs integer)")
    with pytest.raises(DatabaseError, match='nothing was changed: relation "feature_activations_2" already exists'):
        open_database(postgres_url)
    assert _rows(before, "SELECT version_num FROM alembic_version") == [("0002",)]
