"""On PostgreSQL, examples stand in one partition for each extraction.

Before, every load had a table that ``feature_activations`` inherited: at 1,000 results, planning a query took 100 ms.
The tables become partitions as they are, no row is copied; only rows that stand in ``feature_activations`` itself,
where the first version put them, are. Owner and grants of ``feature_activations``, and views of it, go over to the new
table.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TABLE, _OLD = "feature_activations", "feature_activations_before_0003"
_KEY = "PRIMARY KEY (extraction_id, neuron_index, rank)"
_BY_SAMPLE = "(extraction_id, sample_index)"

_CHILDREN = f"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{_TABLE}'::regclass ORDER BY inhrelid"
_INDEXES = "SELECT indexrelid::regclass::text, indisprimary FROM pg_index WHERE indrelid = to_regclass('{name}')"
_VIEWS = f"""
    SELECT DISTINCT view.oid::regclass::text, pg_get_viewdef(view.oid)
    FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid JOIN pg_class view ON view.oid = ev_class
    WHERE refobjid = '{_TABLE}'::regclass AND classid = 'pg_rewrite'::regclass AND view.relkind = 'v'
"""
_OWNER = f"SELECT relowner::regrole::text FROM pg_class WHERE oid = '{_TABLE}'::regclass"
_GRANTS = f"""
    SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, is_grantable
    FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = '{_TABLE}'::regclass AND grantee <> relowner
"""


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    run = connection.exec_driver_sql
    run(f"LOCK TABLE {_TABLE} IN ACCESS EXCLUSIVE MODE")
    children, grants, views = run(_CHILDREN).scalars().all(), run(_GRANTS).all(), run(_VIEWS).all()
    owner = run(_OWNER).scalar()
    for index, is_key in run(_INDEXES.format(name=_TABLE)).all():
        run(f"ALTER INDEX {index} RENAME TO {_index_name(_OLD, is_key)}")
    run(f"ALTER TABLE {_TABLE} RENAME TO {_OLD}")
    run(f"CREATE TABLE {_TABLE} (LIKE {_OLD}, {_KEY}) PARTITION BY LIST (extraction_id)")
    run(f"CREATE INDEX ix_{_TABLE}_sample ON {_TABLE} {_BY_SAMPLE}")
    run(f"ALTER TABLE {_TABLE} OWNER TO {owner}")
    for privilege, role, grantable in grants:
        run(f"GRANT {privilege} ON {_TABLE} TO {role}" + (" WITH GRANT OPTION" if grantable else ""))
    for child in children:
        _attach_child(connection, child)
    for extraction_id in run(f"SELECT DISTINCT extraction_id FROM {_OLD} ORDER BY 1").scalars().all():
        _copy(connection, extraction_id)
    for view, definition in views:
        run(f"CREATE OR REPLACE VIEW {view} AS {definition}")
    run(f"DROP TABLE {_OLD}")


def _attach_child(connection: sa.Connection, child: str) -> None:
    """Make one load's table the partition of its extraction; drop it if it was emptied by a later load."""
    run = connection.exec_driver_sql
    extraction_id = run(f"SELECT extraction_id FROM {child} LIMIT 1").scalar()
    if extraction_id is None:
        run(f"DROP TABLE {child}")
        return
    name = f"{_TABLE}_{extraction_id}"
    for index, is_key in run(_INDEXES.format(name=child)).all():
        run(f"ALTER INDEX {index} RENAME TO {_index_name(name, is_key)}")
    run(f"ALTER TABLE {child} NO INHERIT {_OLD}")
    run(f"ALTER TABLE {child} RENAME TO {name}")
    # Its CHECK on extraction_id saves the server from looking at every row; key and index are taken over.
    run(f"ALTER TABLE {_TABLE} ATTACH PARTITION {name} FOR VALUES IN ({extraction_id})")


def _copy(connection: sa.Connection, extraction_id: int) -> None:
    name = f"{_TABLE}_{extraction_id}"
    run = connection.exec_driver_sql
    run(f"CREATE TABLE {name} (LIKE {_OLD}, CHECK (extraction_id = {extraction_id}))")
    run(f"INSERT INTO {name} SELECT * FROM {_OLD} WHERE extraction_id = {extraction_id}")
    run(f"ALTER TABLE {name} ADD {_KEY}")
    run(f"CREATE INDEX {_index_name(name, False)} ON {name} {_BY_SAMPLE}")
    run(f"ALTER TABLE {_TABLE} ATTACH PARTITION {name} FOR VALUES IN ({extraction_id})")


def _index_name(table: str, is_key: bool) -> str:
    return f"{table}_pkey" if is_key else f"ix_{table}_sample"


def downgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    run = connection.exec_driver_sql
    run(f"CREATE TABLE {_OLD} (LIKE {_TABLE})")
    run(f"INSERT INTO {_OLD} SELECT * FROM {_TABLE}")
    run(f"DROP TABLE {_TABLE}")
    run(f"ALTER TABLE {_OLD} RENAME TO {_TABLE}")
    run(f"ALTER TABLE {_TABLE} ADD {_KEY}")
    run(f"CREATE INDEX ix_{_TABLE}_sample ON {_TABLE} {_BY_SAMPLE}")
