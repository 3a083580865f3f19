"""What people have put on a table of PostgreSQL that a migration is about to replace: what goes over, and what cannot.

The server's catalog names everything that depends on a table (pg_depend). Whatever is not known to go over is refused,
so that nothing is lost without a word, access rules least of all.
"""

from typing import Any

import sqlalchemy as sa

from extraction_assets.database.errors import DatabaseError
from extraction_assets.database.url_text import shown_url

# The table's row type and its array are what functions and columns of other tables depend on. A view goes over if this
# role may replace it; whoever asks for {t} finds it by the search path, as the migration does.
_LOST = """
    WITH row_type AS (SELECT unnest(ARRAY[oid, typarray]) AS oid FROM pg_type WHERE typrelid = '{t}'::regclass)
    SELECT DISTINCT CASE ev_type WHEN '1' THEN pg_describe_object('pg_class'::regclass, ev_class, 0)
        ELSE pg_describe_object(classid, objid, objsubid) END
    FROM pg_depend
    LEFT JOIN pg_class c ON classid = 'pg_class'::regclass AND c.oid = objid
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    LEFT JOIN pg_constraint k ON classid = 'pg_constraint'::regclass AND k.oid = objid
    LEFT JOIN pg_rewrite r ON classid = 'pg_rewrite'::regclass AND r.oid = objid
    LEFT JOIN pg_class v ON v.oid = ev_class
    WHERE (refclassid = 'pg_class'::regclass AND refobjid = '{t}'::regclass
        OR refclassid = 'pg_type'::regclass AND refobjid IN (SELECT oid FROM row_type))
    AND NOT coalesce(CASE classid
        WHEN 'pg_type'::regclass THEN objid IN (SELECT oid FROM row_type)
        WHEN 'pg_constraint'::regclass THEN k.contype IN ('p', 'n') AND k.conrelid = '{t}'::regclass
        WHEN 'pg_class'::regclass THEN c.relkind = 't' OR c.oid = '{t}'::regclass
            OR c.relkind IN ('i', 'I') AND (i.indisprimary OR NOT i.indisunique)
            OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid AND c.relname ~ '{child}')
        WHEN 'pg_rewrite'::regclass THEN r.ev_type = '1' AND v.relkind = 'v' AND v.relpersistence <> 't'
            AND pg_has_role(v.relowner, 'USAGE') AND has_schema_privilege(v.relnamespace, 'CREATE')
        END, false)
    ORDER BY 1
"""
# Row security would also hide rows of a load's table from its own migration. A load's table that holds no rows is
# dropped, and with it what depends on it.
_LOST_OF_LOADS = """
    SELECT 'row-level security of ' || pg_describe_object('pg_class'::regclass, oid, 0) FROM pg_class
    WHERE relrowsecurity AND (oid = '{t}'::regclass
        OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = '{t}'::regclass))
    ORDER BY 1
"""
_ON_LOADS = """
    SELECT inhrelid::regclass::text AS load, pg_describe_object('pg_class'::regclass, ev_class, 0) AS dependent
    FROM pg_inherits JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = inhrelid
    JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND pg_rewrite.oid = objid
    WHERE inhparent = '{t}'::regclass GROUP BY 1, 2 ORDER BY 1, 2
"""

# Every statement as the server writes it, with its own quotes. Views keep their options: a barrier is an access rule.
_REPLACED_VIEWS = """
    SELECT DISTINCT format('CREATE OR REPLACE VIEW %s%s AS %s', v.oid::regclass,
        ' WITH (' || array_to_string(v.reloptions, ', ') || ')', pg_get_viewdef(v.oid))
    FROM pg_depend JOIN pg_rewrite r ON classid = 'pg_rewrite'::regclass AND r.oid = objid
    JOIN pg_class v ON v.oid = ev_class
    WHERE refclassid = 'pg_class'::regclass AND refobjid = '{t}'::regclass
"""
_INDEXES = """
    SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE indrelid = '{t}'::regclass AND NOT indisprimary AND relname <> '{ours}' ORDER BY relname
"""
_PEOPLES_INDEXES = """
    SELECT pg_describe_object('pg_class'::regclass, indexrelid, 0) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE indrelid = '{t}'::regclass AND NOT indisprimary AND relname <> 'ix_{t}_sample' ORDER BY relname
"""
_RIGHTS = """
    WITH acl AS (
        SELECT relowner, '' AS columns, aclexplode(relacl) AS a FROM pg_class WHERE oid = '{t}'::regclass
        UNION ALL SELECT relowner, format(' (%I)', attname), aclexplode(attacl)
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE pg_class.oid = '{t}'::regclass AND NOT attisdropped
    )
    SELECT format('GRANT %s%s ON %s TO %s%s', (a).privilege_type, columns, '{t}'::regclass,
        CASE (a).grantee WHEN 0 THEN 'PUBLIC' ELSE (a).grantee::regrole::text END,
        CASE WHEN (a).is_grantable THEN ' WITH GRANT OPTION' END)
    FROM acl WHERE (a).grantee <> relowner
"""
_COMMENTS = """
    SELECT CASE objsubid WHEN 0 THEN format('COMMENT ON TABLE %s IS %L', objoid::regclass, description)
        ELSE format('COMMENT ON COLUMN %s.%I IS %L', objoid::regclass, attname, description) END
    FROM pg_description LEFT JOIN pg_attribute ON attrelid = objoid AND attnum = objsubid
    WHERE classoid = 'pg_class'::regclass AND objoid = '{t}'::regclass
"""
_OWNER = """
    SELECT format('ALTER TABLE %s OWNER TO %s', oid::regclass, relowner::regrole)
    FROM pg_class WHERE oid = '{t}'::regclass
"""
_RIGHTS_OF_ANOTHER = """
    WITH acl AS (SELECT relowner, aclexplode(relacl) AS a FROM pg_class WHERE oid = '{t}'::regclass)
    SELECT format('GRANT %s ON {new} TO %s%s', (a).privilege_type,
        CASE (a).grantee WHEN 0 THEN 'PUBLIC' ELSE (a).grantee::regrole::text END,
        CASE WHEN (a).is_grantable THEN ' WITH GRANT OPTION' END)
    FROM acl WHERE (a).grantee <> relowner
    UNION ALL SELECT format('ALTER TABLE {new} OWNER TO %s', relowner::regrole)
    FROM pg_class WHERE oid = '{t}'::regclass
"""
# What ALTER DEFAULT PRIVILEGES grants on every new table.
_GIVEN_ROLES = """
    SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
    FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = '{t}'::regclass AND grantee <> relowner
"""


def refuse_what_would_be_lost(connection: sa.Connection, table: str, child: str) -> None:
    """Raises DatabaseError if something depends on ``table`` that cannot go over to a new table of its name.

    ``child`` is a regular expression for the names of the tables that may inherit it. Changes nothing.
    """
    lost = _listed(connection, _LOST.format(t=table, child=child)) + _listed(connection, _LOST_OF_LOADS.format(t=table))
    for row in run_as_written(connection, _ON_LOADS.format(t=table)).mappings():
        if not _listed(connection, f"SELECT 1 FROM {row['load']} LIMIT 1"):
            lost.append(f"{row['dependent']} of table {row['load']}, which is empty")
    if lost:
        raise refusal(connection, f"makes the table {table} again", "to the new table", lost)


def refusal(connection: sa.Connection, change: str, over: str, lost: list[str]) -> DatabaseError:
    """The error for what cannot go over when a migration changes a table."""
    return DatabaseError(
        f"the results database {shown_url(connection.engine.url)} must be migrated, which {change}, but this cannot go "
        f"over {over}: {'; '.join(lost)}. Nothing was changed: keep the definitions, drop these, open the database "
        "again, and create them again afterwards"
    )


def refuse_what_a_view_loses(connection: sa.Connection, table: str, child: str) -> None:
    """Raises DatabaseError if something depends on a partitioned ``table``, or on one of its partitions, that cannot
    go over to a view of its name: what ``refuse_what_would_be_lost`` names, people's indexes, and what reads a
    partition. ``child`` is a regular expression for the names of partitions. Changes nothing."""
    lost = _listed(connection, _LOST.format(t=table, child=child)) + _listed(connection, _LOST_OF_LOADS.format(t=table))
    lost += _listed(connection, _PEOPLES_INDEXES.format(t=table))
    on_partitions = run_as_written(connection, _ON_LOADS.format(t=table)).mappings()
    lost += [f"{row['dependent']} of table {row['load']}" for row in on_partitions]
    if lost:
        raise refusal(connection, f"makes the table {table} a view", "to the view", lost)


def statements_for_new_view(connection: sa.Connection, table: str) -> list[str]:
    """What gives a view of the same name the owner, the rights and the comments that ``table`` has now."""
    statements = statements_for_new_table(connection, table)
    return [statement.replace("COMMENT ON TABLE", "COMMENT ON VIEW", 1) for statement in statements]


def statements_for_new_table(connection: sa.Connection, table: str) -> list[str]:
    """What gives a new table of the same name the owner, the rights and the comments that ``table`` has now."""
    queries = (_OWNER, _RIGHTS, _COMMENTS)
    return [statement for query in queries for statement in _listed(connection, query.format(t=table))]


def statements_for_rights_of(connection: sa.Connection, table: str, new: str) -> list[str]:
    """What gives the table ``new`` the owner of ``table``, and its rights but those on single columns."""
    return _listed(connection, _RIGHTS_OF_ANOTHER.format(t=table, new=new))


def statements_for_views(connection: sa.Connection, table: str) -> list[str]:
    """What makes the views of ``table`` read a new table of the same name."""
    return _listed(connection, _REPLACED_VIEWS.format(t=table))


def statements_for_indexes(connection: sa.Connection, table: str, ours: str) -> list[str]:
    """What makes people's indexes of ``table`` again; ``ours`` is the name of the package's index."""
    return _listed(connection, _INDEXES.format(t=table, ours=ours))


def revoke_defaults(connection: sa.Connection, table: str) -> None:
    """Take away what default privileges have granted on a new table: only the old table's rights are to hold."""
    for role in _listed(connection, _GIVEN_ROLES.format(t=table)):
        run_as_written(connection, f"REVOKE ALL ON {table} FROM {role}")


def run_as_written(connection: sa.Connection, statement: str) -> sa.CursorResult[Any]:
    """Run a statement in which ``%`` is no parameter: a view may say ``LIKE 'a%'``."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _listed(connection: sa.Connection, query: str) -> list[str]:
    return [str(value) for value in run_as_written(connection, query).scalars()]
