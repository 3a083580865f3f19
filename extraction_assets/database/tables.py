"""Tables of the results database (SQLAlchemy Core). Alembic migrations create and change the schema."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

from extraction_assets.database.backends import column_type
from extraction_assets.database.backends.protocol import EXAMPLES_TABLE
from extraction_assets.engine.selection.statistics.descriptions import COLUMNS

metadata = MetaData()

# float32 values are stored as doubles, in which every float32 is exact.
_ROW_ID = column_type("row_id")
_INTEGERS, _DOUBLES, _TEXTS = column_type("integers"), column_type("doubles"), column_type("texts")
_STATISTIC_TYPES: dict[str, type[TypeEngine[Any]]] = {"integer": BigInteger, "number": Double, "integers": JSON}

corpora = Table(
    "corpora",
    metadata,
    Column("id", _ROW_ID, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("sample_count", BigInteger, nullable=False),
    Column("start_sample", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("tokenizer", Text, nullable=False),
    Column("packing", Text, nullable=False),
)

extractions = Table(
    "extractions",
    metadata,
    Column("id", _ROW_ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sae", Text, nullable=False),
    Column("corpus_id", BigInteger, ForeignKey("corpora.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("hook", Text, nullable=False),
    Column("latent_dim", BigInteger, nullable=False),
    Column("sample_count", BigInteger, nullable=False),
    Column("token_count", BigInteger, nullable=False),
    Column("max_length", Integer, nullable=False),
    Column("top_k_examples", Integer, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True), nullable=False),
    UniqueConstraint("name", "sae"),
)

features = Table(
    "features",
    metadata,
    Column("extraction_id", BigInteger, ForeignKey("extractions.id"), primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    *(Column(one.name, _STATISTIC_TYPES[one.type], nullable=one.nullable) for one in COLUMNS),
)

# A backend may store it in parts: see Backend.replace_rows.
feature_activations = Table(
    EXAMPLES_TABLE,
    metadata,
    # An extraction's id, without a foreign key: looking it up for every row would halve the rate of a load.
    Column("extraction_id", BigInteger, primary_key=True),
    Column("neuron_index", BigInteger, primary_key=True),
    Column("rank", Integer, primary_key=True),
    Column("sample_index", BigInteger, nullable=False),
    Column("max_activation", Double, nullable=False),
    Column("max_token", Text, nullable=False),
    Column("positions", _INTEGERS, nullable=False),
    Column("activations", _DOUBLES, nullable=False),
    Index("ix_feature_activations_sample", "extraction_id", "sample_index"),
    sqlite_with_rowid=False,
)

samples = Table(
    "samples",
    metadata,
    Column("corpus_id", BigInteger, ForeignKey("corpora.id"), primary_key=True),
    Column("sample_index", BigInteger, primary_key=True),
    Column("document_id", Text, nullable=False),
    Column("first_token", BigInteger, nullable=False),
    Column("token_ids", _INTEGERS, nullable=False),
    Column("tokens", _TEXTS, nullable=False),
)

# Of corpora of chats alone: who speaks at positions start to stop - 1 of a sample.
sample_messages = Table(
    "sample_messages",
    metadata,
    Column("corpus_id", BigInteger, ForeignKey("corpora.id"), primary_key=True),
    Column("sample_index", BigInteger, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("role", Text, nullable=False),
    Column("start", Integer, nullable=False),
    Column("stop", Integer, nullable=False),
)
