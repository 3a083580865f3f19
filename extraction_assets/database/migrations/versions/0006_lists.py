"""Examples as one list for each feature, and tables for draws, for what is related, and for people's labels.

``feature_activations`` becomes a view of a row an example over ``feature_example_lists``; the partitions of PostgreSQL
go. Every example stays, in its order; activations are written with the digits that a float32 needs. On PostgreSQL,
owner, grants, comments and people's views of ``feature_activations`` go over; if anything else depends on it, nothing
is changed and an error names it. Needs the disk space of the examples twice until it ends.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from extraction_assets.database.backends import backend_of
from extraction_assets.database.bins import DENSITY_EDGES, MAX_EDGES, bin_of
from extraction_assets.database.migrations.rows_to_lists import fill_lists
from extraction_assets.database.migrations.table_dependents import (
    refusal,
    refuse_what_a_view_loses,
    revoke_defaults,
    run_as_written,
    statements_for_new_view,
    statements_for_rights_of,
    statements_for_views,
)

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TABLE, _OLD = "feature_activations", "feature_activations_before_0006"
_LISTS = {
    "feature_example_lists": ("neuron_index", "examples"),
    "feature_draw_lists": ("neuron_index", "draws"),
    "sample_feature_lists": ("sample_index", "features"),
}
_SORTED_BY = ("max_activation", "mean_activation", "std_activation", "token_frequency")
_IN_BINS = ("density_bin", "max_bin", "neuron_index", "token_frequency", *_SORTED_BY[:3])
_MORE = (
    "relations",
    "feature_tokens",
    "feature_neighbours",
    "feature_flags",
    "directions",
    "feature_logits",
    "feature_labels",
)


def upgrade() -> None:
    connection = op.get_bind()
    server = connection.dialect.name == "postgresql"
    if server:
        # A reader whose snapshot is older would find no rows in the new tables. Each looks at extractions first.
        connection.exec_driver_sql(f"LOCK TABLE extractions, {_TABLE} IN ACCESS EXCLUSIVE MODE")
        refuse_what_a_view_loses(connection, _TABLE, r"^feature_activations_\d+$")
    else:
        _refuse_what_sqlite_loses(connection)
    _create_lists()
    _create_relations()
    _create_directions()
    _create_labels()
    op.add_column("extractions", sa.Column("numerics", sa.JSON))
    _change_features(connection)
    op.create_index("ix_samples_document", "samples", ["corpus_id", "document_id", "first_token"])
    if server:
        for table, column in (("feature_example_lists", "examples"), ("feature_draw_lists", "draws")):
            # As they are: to compress them would take longer than the rest of a load.
            connection.exec_driver_sql(f"ALTER TABLE {table} ALTER {column} SET STORAGE EXTERNAL")
    fill_lists(connection)
    if server:
        _make_views_on_server(connection)
    else:
        op.drop_table(_TABLE)  # what people's views call by its name
        _make_views(connection)


def _refuse_what_sqlite_loses(connection: sa.Connection) -> None:
    """Indexes and triggers that people have put on the table."""
    query = (
        "SELECT type || ' ' || name FROM sqlite_master WHERE tbl_name = ? AND type IN ('index', 'trigger') AND sql > ''"
    )
    found = connection.exec_driver_sql(f"{query} AND name <> ? ORDER BY 1", (_TABLE, f"ix_{_TABLE}_sample")).scalars()
    if lost := list(found):
        raise refusal(connection, f"makes the table {_TABLE} a view", "to the view", lost)


def _make_views(connection: sa.Connection) -> None:
    for name, query in backend_of(connection).views.items():
        connection.exec_driver_sql(f"CREATE VIEW {name} AS {query}")


def _make_views_on_server(connection: sa.Connection) -> None:
    """With the owner, the rights and the comments of the table, which people's views then read no longer."""
    kept, views = statements_for_new_view(connection, _TABLE), statements_for_views(connection, _TABLE)
    op.rename_table(_TABLE, _OLD)
    _make_views(connection)
    _give_rights(connection)
    for statement in kept + views:
        run_as_written(connection, statement)
    op.drop_table(_OLD)


def _create_lists() -> None:
    for table, (of, elements) in _LISTS.items():
        op.create_table(
            table,
            sa.Column("extraction_id", sa.BigInteger, primary_key=True),
            sa.Column(of, sa.BigInteger, primary_key=True),
            sa.Column(elements, sa.JSON, nullable=False),
        )
    op.create_table(
        "strongest_token_lists",
        sa.Column("extraction_id", sa.BigInteger, primary_key=True),
        sa.Column("token", sa.Text, primary_key=True),
        sa.Column("word", sa.Text, nullable=False),
        sa.Column("features", sa.JSON, nullable=False),
    )
    op.create_index("ix_strongest_token_lists_word", "strongest_token_lists", ["extraction_id", "word"])
    op.create_table(
        "feature_roles",
        sa.Column("extraction_id", sa.BigInteger, primary_key=True),
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("neuron_index", sa.BigInteger, primary_key=True),
        sa.Column("examples", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )


def _create_relations() -> None:
    """Tokens, neighbours and flags of features, and from what they were counted."""
    op.create_table(
        "relations",
        sa.Column("extraction_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("merge_fingerprint", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("sample_one_in", sa.Integer, nullable=False),
        sa.Column("sample_count", sa.BigInteger, nullable=False),
        sa.Column("token_count", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "feature_tokens",
        sa.Column("extraction_id", sa.BigInteger, primary_key=True),
        sa.Column("neuron_index", sa.BigInteger, primary_key=True),
        sa.Column("place", sa.Text, primary_key=True),
        sa.Column("rank", sa.Integer, primary_key=True),
        sa.Column("token_id", sa.BigInteger, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("mean_activation", sa.Double, nullable=False),
        sa.Column("share", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    by_token = ["extraction_id", "place", "token", "count", "neuron_index"]
    op.create_index("ix_feature_tokens_token", "feature_tokens", by_token)
    op.create_table(
        "feature_neighbours",
        sa.Column("extraction_id", sa.BigInteger, primary_key=True),
        sa.Column("neuron_index", sa.BigInteger, primary_key=True),
        sa.Column("neighbours", _JSON, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "feature_flags",
        sa.Column("extraction_id", sa.BigInteger, primary_key=True),
        sa.Column("flag", sa.Text, primary_key=True),
        sa.Column("neuron_index", sa.BigInteger, primary_key=True),
        sa.Column("detail", _JSON),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_feature_flags_feature", "feature_flags", ["extraction_id", "neuron_index"])


def _create_directions() -> None:
    op.create_table(
        "directions",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sae", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("norm", sa.Text, nullable=False),
        sa.Column("undefined", sa.Text),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("name", "sae"),
    )
    op.create_table(
        "feature_logits",
        sa.Column("directions_id", sa.BigInteger, primary_key=True),
        sa.Column("neuron_index", sa.BigInteger, primary_key=True),
        *(sa.Column(name, _JSON) for name in ("top", "bottom")),
        *(sa.Column(name, sa.Double) for name in ("mean", "std", "minimum", "maximum")),
        *(sa.Column(name, _JSON) for name in ("histogram", "neighbours")),
    )


def _create_labels() -> None:
    op.create_table(
        "feature_labels",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("sae", sa.Text, primary_key=True),
        sa.Column("neuron_index", sa.BigInteger, primary_key=True),
        sa.Column("label", sa.Text),
        sa.Column("mark", sa.Text),
        sa.Column("note", sa.Text),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )


def _change_features(connection: sa.Connection) -> None:
    op.add_column("features", sa.Column("interval_samples", sa.JSON))
    bins = {"density_bin": ("token_frequency", DENSITY_EDGES), "max_bin": ("max_activation", MAX_EDGES)}
    for name, (column, edges) in bins.items():
        op.add_column("features", sa.Column(name, sa.SmallInteger))
        value = f"CASE WHEN max_activation IS NOT NULL THEN {column} END"
        found = f"width_bucket({value}, ARRAY[{', '.join(map(repr, edges))}]::double precision[])"
        if connection.dialect.name == "sqlite":
            found = f"bin_{name}({value})"
            driver = connection.connection.driver_connection
            assert driver is not None, "the transaction is open"
            driver.create_function(found.partition("(")[0], 1, lambda value, edges=edges: bin_of(value, edges))
        connection.exec_driver_sql(f"UPDATE features SET {name} = {found}")
    for name in _SORTED_BY:
        op.create_index(f"ix_features_{name}", "features", ["extraction_id", name, "neuron_index"])
    op.create_index("ix_features_bins", "features", ["extraction_id", *_IN_BINS])


def _give_rights(connection: sa.Connection) -> None:
    """Whoever may read or write examples may do so with their lists; what is about features goes by ``features``."""
    of_examples = (
        *_LISTS,
        "strongest_token_lists",
        "feature_roles",
        *(name for name in backend_of(connection).views if name != _TABLE),
    )
    given = {**dict.fromkeys(of_examples, _OLD), **dict.fromkeys(_MORE, "features")}
    for new, old in given.items():
        revoke_defaults(connection, new)
        for statement in statements_for_rights_of(connection, old, new):
            run_as_written(connection, statement)
    revoke_defaults(connection, _TABLE)


def downgrade() -> None:
    raise NotImplementedError("examples do not go back to a row each: put a back-up in the place of the database")
