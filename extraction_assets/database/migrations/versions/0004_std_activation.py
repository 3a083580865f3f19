"""The standard deviation of a feature's activations; NULL for what was merged before, until it is merged again."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("features", sa.Column("std_activation", sa.Double))


def downgrade() -> None:
    op.drop_column("features", "std_activation")
