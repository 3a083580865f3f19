"""Who speaks where in the samples of chats; no rows for what was merged before."""

import sqlalchemy as sa
from alembic import op

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


def downgrade() -> None:
    op.drop_table("sample_messages")
