"""Which token ids of a corpus are special, and an index of the numbers of features by their number.

NULL for the corpora that are there: the next merge of one of their extractions says it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NUMBERS = ("density_bin", "max_bin", "token_frequency", "max_activation", "mean_activation", "std_activation")


def upgrade() -> None:
    op.add_column("corpora", sa.Column("special_ids", sa.JSON))
    op.create_index("ix_features_numbers", "features", ["extraction_id", "neuron_index", *_NUMBERS])
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":  # which index to take is not known without the new one's statistics
        connection.exec_driver_sql("PRAGMA analysis_limit = 400")
    connection.exec_driver_sql("ANALYZE features")


def downgrade() -> None:
    op.drop_index("ix_features_numbers", "features")
    op.drop_column("corpora", "special_ids")
