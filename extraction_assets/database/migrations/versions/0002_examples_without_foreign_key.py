"""Examples no longer refer to their extraction by a foreign key, on PostgreSQL.

PostgreSQL looks the key up for every row that is loaded, which takes as long as the load itself (134,000 rows a second
with the key, 242,000 without). The only code that writes examples writes their extraction in the same transaction.
SQLite never looks: there the key stays, since taking it away would mean copying the table.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NAME = "feature_activations_extraction_id_fkey"  # PostgreSQL's own name for it


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(_NAME, "feature_activations", type_="foreignkey")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.create_foreign_key(_NAME, "feature_activations", "extractions", ["extraction_id"], ["id"])
