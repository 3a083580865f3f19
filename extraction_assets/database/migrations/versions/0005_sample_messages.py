"""Who speaks where in the samples of chats; no rows for what was merged before.

On PostgreSQL, whoever may read or write ``samples`` may do so here.
"""

import sqlalchemy as sa
from alembic import op

from extraction_assets.database.migrations.table_dependents import run_as_written, statements_for_rights_of

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sample_messages",
        sa.Column("corpus_id", sa.BigInteger, sa.ForeignKey("corpora.id"), primary_key=True),
        sa.Column("sample_index", sa.BigInteger, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("stop", sa.Integer, nullable=False),
    )
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        for statement in statements_for_rights_of(connection, "samples", "sample_messages"):
            run_as_written(connection, statement)


def downgrade() -> None:
    op.drop_table("sample_messages")
