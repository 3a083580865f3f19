"""First tables: corpora, extractions, features, feature_activations, samples."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_INTEGERS = sa.JSON().with_variant(postgresql.ARRAY(sa.Integer), "postgresql")
_DOUBLES = sa.JSON().with_variant(postgresql.ARRAY(sa.Double), "postgresql")
_TEXTS = sa.JSON().with_variant(postgresql.ARRAY(sa.Text), "postgresql")


def upgrade() -> None:
    _create_extractions()
    _create_features()
    _create_samples()


def _create_extractions() -> None:
    op.create_table(
        "corpora",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("sample_count", sa.BigInteger, nullable=False),
        sa.Column("start_sample", sa.BigInteger, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("tokenizer", sa.Text, nullable=False),
        sa.Column("packing", sa.Text, nullable=False),
    )
    op.create_table(
        "extractions",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sae", sa.Text, nullable=False),
        sa.Column("corpus_id", sa.BigInteger, sa.ForeignKey("corpora.id"), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("hook", sa.Text, nullable=False),
        sa.Column("latent_dim", sa.BigInteger, nullable=False),
        sa.Column("sample_count", sa.BigInteger, nullable=False),
        sa.Column("token_count", sa.BigInteger, nullable=False),
        sa.Column("max_length", sa.Integer, nullable=False),
        sa.Column("top_k_examples", sa.Integer, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("name", "sae"),
    )


def _create_features() -> None:
    op.create_table(
        "features",
        sa.Column("extraction_id", sa.BigInteger, sa.ForeignKey("extractions.id"), primary_key=True),
        sa.Column("neuron_index", sa.BigInteger, primary_key=True),
        sa.Column("activation_count", sa.BigInteger, nullable=False),
        sa.Column("activation_frequency", sa.Double, nullable=False),
        sa.Column("token_count", sa.BigInteger, nullable=False),
        sa.Column("token_frequency", sa.Double, nullable=False),
        sa.Column("max_activation", sa.Double),
        sa.Column("mean_activation", sa.Double),
        sa.Column("histogram", sa.JSON, nullable=False),
    )
    op.create_table(
        "feature_activations",
        sa.Column("extraction_id", sa.BigInteger, sa.ForeignKey("extractions.id"), primary_key=True),
        sa.Column("neuron_index", sa.BigInteger, primary_key=True),
        sa.Column("rank", sa.Integer, primary_key=True),
        sa.Column("sample_index", sa.BigInteger, nullable=False),
        sa.Column("max_activation", sa.Double, nullable=False),
        sa.Column("max_token", sa.Text, nullable=False),
        sa.Column("positions", _INTEGERS, nullable=False),
        sa.Column("activations", _DOUBLES, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_feature_activations_sample", "feature_activations", ["extraction_id", "sample_index"])


def _create_samples() -> None:
    op.create_table(
        "samples",
        sa.Column("corpus_id", sa.BigInteger, sa.ForeignKey("corpora.id"), primary_key=True),
        sa.Column("sample_index", sa.BigInteger, primary_key=True),
        sa.Column("document_id", sa.Text, nullable=False),
        sa.Column("first_token", sa.BigInteger, nullable=False),
        sa.Column("token_ids", _INTEGERS, nullable=False),
        sa.Column("tokens", _TEXTS, nullable=False),
    )


def downgrade() -> None:
    for table in ("samples", "feature_activations", "features", "extractions", "corpora"):
        op.drop_table(table)
