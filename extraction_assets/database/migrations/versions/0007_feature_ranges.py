"""Intervals of a feature's maximum that are asked for beside the fixed ones; no rows for what was merged before.

On PostgreSQL, whoever may read or write ``feature_neighbours`` may do so here.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from extraction_assets.database.migrations.table_dependents import run_as_written, statements_for_rights_of

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feature_ranges",
        sa.Column("extraction_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("neuron_index", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("ranges", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
    )
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        for statement in statements_for_rights_of(connection, "feature_neighbours", "feature_ranges"):
            run_as_written(connection, statement)


def downgrade() -> None:
    op.drop_table("feature_ranges")
